//! Asking a manager what a join token is good for, before it is used.

use swarm_api::ext;
use swarm_ca::root::RootBundle;
use swarm_ca::token::JoinToken;
use swarm_rt::net::Address;
use swarm_rt::tls::{Security, ServerName};
use swarm_types::{NodeId, Timestamp};

use super::IdentityError;
use crate::obtain::{self, ObtainError};

/// Asks what the token is good for before it is used. Managers of other programs do not know
/// the question; then its use shows it.
pub(super) async fn check(
    root: &RootBundle,
    managers: &[String],
    token: &JoinToken,
    readmitted: Option<&NodeId>,
) -> Result<(), IdentityError> {
    let security = Security::Verified(root.pem().to_owned(), ServerName::Ca);
    for address in managers {
        let address = Address::Tcp(address.clone());
        let Some(answer) = ask_about(&address, &security, token).await else {
            continue;
        };
        if !answer.valid {
            let reason = answer.reason;
            let address = address.to_string();
            return Err(ObtainError::Refused { address, reason }.into());
        }
        if answer.role == "manager" {
            return Err(IdentityError::SecondManager(None));
        }
        let is_for: Option<NodeId> = answer.node_id.parse().ok();
        return match (readmitted, is_for) {
            (Some(node), Some(is_for)) if *node == is_for => Ok(()),
            (None, None) => Ok(()),
            (readmitted, is_for) => Err(wrong_token(&address, readmitted, is_for.as_ref())),
        };
    }
    Ok(())
}

/// Whether the token is one that readmits this node, as far as a manager can be asked right now.
pub(super) async fn readmits(
    managers: &[String],
    token: &JoinToken,
    node: &NodeId,
    now: Timestamp,
) -> bool {
    for address in managers {
        let address = Address::Tcp(address.clone());
        let Ok(root) = obtain::fetch_root(&address, now, Some(token)).await else {
            continue;
        };
        let security = Security::Verified(root.pem().to_owned(), ServerName::Ca);
        if let Some(answer) = ask_about(&address, &security, token).await {
            return answer.valid && answer.node_id == node.to_string();
        }
    }
    false
}

/// What a manager says of a token; `None` if it does not say.
async fn ask_about(
    address: &Address,
    security: &Security,
    token: &JoinToken,
) -> Option<ext::CheckJoinTokenResponse> {
    let channel = obtain::connect(address, security).ok()?;
    let mut client = ext::identity_client::IdentityClient::new(channel);
    let request = ext::CheckJoinTokenRequest {
        token: token.to_string(),
    };
    let answer = obtain::limited(client.check_join_token(request)).await;
    answer.ok().map(tonic::Response::into_inner)
}

fn wrong_token(
    address: &Address,
    readmitted: Option<&NodeId>,
    is_for: Option<&NodeId>,
) -> IdentityError {
    let reason = match (readmitted, is_for) {
        (Some(node), Some(other)) => format!(
            "the join token readmits node {other}, and this is node {node}; make one with \
             `swarmctl node readmit {node}`"
        ),
        (Some(node), None) => format!(
            "the join token admits new nodes, and this directory has the state of node {node}, \
             whose certificate has expired; make a token that renews it with `swarmctl node \
             readmit {node}`, or move the state directory away to join as a new node"
        ),
        (None, other) => format!(
            "the join token readmits node {}, whose state is not in this directory; get a token \
             for new nodes with `swarmctl cluster join-token worker`",
            other.map(ToString::to_string).unwrap_or_default()
        ),
    };
    let address = address.to_string();
    ObtainError::Refused { address, reason }.into()
}

//! `swarmctl cluster join-token`, `swarmctl cluster tokens` and `swarmctl node readmit`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use swarm_api::{ext, v1};
use swarm_rt::net;
use swarm_types::Timestamp;
use swarm_types::engine::Engine;
use swarm_types::time::duration_to_wire;

use crate::cli::{Format, ListFlags};
use crate::cluster::Role;
use crate::failure::{Exit, Failure};
use crate::lookup::find;
use crate::output::{Context, emit, emit_json, emit_line, note, remove_each};
use crate::{cluster, table, units};

/// Flags of `cluster join-token`.
#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// The role of nodes that join with it.
    #[arg(value_enum)]
    role: Role,
    /// Replace the standing token of the role; the one before is worthless from then on.
    #[arg(long, conflicts_with_all = ["ttl", "uses", "description"])]
    rotate: bool,
    /// Make another token, which expires after this.
    #[arg(long, value_parser = units::duration)]
    ttl: Option<Duration>,
    /// Make another token, with which so many nodes may join.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// A note about a token that is made.
    #[arg(long)]
    description: Option<String>,
    /// Print the token only.
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// The verbs of `cluster tokens`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the tokens with limits.
    #[command(visible_alias = "list")]
    Ls(ListFlags),
    /// Revoke tokens with limits.
    #[command(visible_alias = "remove")]
    Rm {
        /// Ids, or beginnings of ids that no others have.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Flags of `node readmit`.
#[derive(Debug, Args)]
pub(crate) struct Readmit {
    /// Id, name, or the beginning of an id that no other has.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    object: String,
    /// How long the token is accepted; an hour unless given.
    #[arg(long, value_parser = units::duration)]
    ttl: Option<Duration>,
    /// Print the token only.
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// A token as JSON.
#[derive(Debug, Serialize)]
struct TokenView {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    role: String,
    node_id: String,
    description: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    /// The same in whole seconds, for people.
    #[serde(skip)]
    until: Option<String>,
    uses_allowed: Option<u32>,
    uses: u32,
    used_by: Vec<String>,
    state: String,
}

impl TokenView {
    fn new(info: ext::JoinToken, token: Option<String>) -> Self {
        let time = |wire: Option<&prost_types::Timestamp>| {
            units::time(wire).map(|at: Timestamp| at.to_string())
        };
        Self {
            token,
            created_at: time(info.created_at.as_ref()),
            expires_at: time(info.expires_at.as_ref()),
            until: units::time(info.expires_at.as_ref()).map(units::show_time),
            id: (!info.id.is_empty()).then_some(info.id),
            role: info.role,
            node_id: info.node_id,
            description: info.description,
            uses_allowed: (info.uses_allowed > 0).then_some(info.uses_allowed),
            uses: info.uses,
            used_by: info.used_by,
            state: info.state,
        }
    }
}

/// Runs `cluster join-token`.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn join_token(context: &Context, flags: JoinToken) -> Result<(), Failure> {
    let is_limited = flags.ttl.is_some() || flags.uses.is_some() || flags.description.is_some();
    let made = if is_limited {
        create(
            context,
            ext::CreateJoinTokenRequest {
                role: flags.role.name().to_owned(),
                ttl: flags.ttl.map(duration_to_wire),
                uses: flags.uses.unwrap_or(0),
                description: flags.description.unwrap_or_default(),
                ..Default::default()
            },
        )
        .await?
    } else {
        if flags.rotate {
            rotate(context, flags.role).await?;
        }
        standing(context, flags.role).await?
    };
    if flags.role == Role::Manager {
        note(
            "warning: a second manager cannot run yet, so nothing joins with this token; workers \
             join with that of `swarmctl cluster join-token worker`",
        );
    }
    let says = format!("To add a {} to this cluster, run", flags.role.name());
    let ways = Ways {
        says: &says,
        own: true,
        docker: Some("docker swarm join"),
    };
    print(context, (flags.quiet, flags.format), made, &ways).await
}

/// Runs `node readmit`.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn readmit(context: &Context, flags: Readmit) -> Result<(), Failure> {
    let node: v1::Node = find(&context.manager, &flags.object).await?;
    let made = create(
        context,
        ext::CreateJoinTokenRequest {
            node_id: node.id.clone(),
            ttl: flags.ttl.map(duration_to_wire),
            ..Default::default()
        },
    )
    .await?;
    let says = format!("To readmit node {}, run there, once", node.id);
    let engine = node.description.as_ref().and_then(Engine::of_description);
    let ways = Ways {
        says: &says,
        own: engine != Some(Engine::Docker),
        docker: (engine != Some(Engine::Native))
            .then_some("docker swarm leave && docker swarm join"),
    };
    print(context, (flags.quiet, flags.format), made, &ways).await
}

/// Runs a verb of `cluster tokens`.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls(flags) => ls(context, flags).await,
        Verb::Rm { ids } => {
            let manager = &context.manager;
            remove_each(&ids, async |id| {
                let request = ext::RemoveJoinTokenRequest { id: id.to_owned() };
                let mut identity = manager.identity();
                let removed = manager.call(identity.remove_join_token(request)).await;
                removed.map(|removed| removed.id).map_err(|failure| {
                    if failure.exit() == Exit::NotFound {
                        return failure.hint("`swarmctl cluster tokens ls` lists them");
                    }
                    failure
                })
            })
            .await
        }
    }
}

async fn ls(context: &Context, flags: ListFlags) -> Result<(), Failure> {
    let manager = &context.manager;
    let request = ext::ListJoinTokensRequest {};
    let mut identity = manager.identity();
    let listed = manager.call(identity.list_join_tokens(request)).await?;
    let tokens = listed.tokens;
    if flags.quiet {
        let ids = tokens.iter().map(|token| format!("{}\n", token.id));
        return emit(&ids.collect::<String>());
    }
    match flags.format {
        Format::Json => {
            let views = tokens.into_iter().map(|token| TokenView::new(token, None));
            emit_json(&views.collect::<Vec<_>>())
        }
        Format::Table => emit(&list(&tokens)),
    }
}

fn list(tokens: &[ext::JoinToken]) -> String {
    let header = ["ID", "For", "State", "Uses", "Expires", "Description"];
    let row = |token: &ext::JoinToken| {
        let uses = match token.uses_allowed {
            0 => token.uses.to_string(),
            allowed => format!("{}/{allowed}", token.uses),
        };
        let subject = match token.node_id.as_str() {
            "" => format!("any {}", token.role),
            node => format!("node {node}"),
        };
        vec![
            token.id.clone(),
            subject,
            token.state.clone(),
            uses,
            units::time(token.expires_at.as_ref())
                .map_or_else(|| "never".to_owned(), units::show_time),
            token.description.clone(),
        ]
    };
    table::render(&header, tokens.iter().map(row).collect())
}

async fn create(
    context: &Context,
    request: ext::CreateJoinTokenRequest,
) -> Result<TokenView, Failure> {
    let manager = &context.manager;
    let mut identity = manager.identity();
    let made = manager.call(identity.create_join_token(request)).await?;
    let info = made.info.unwrap_or_default();
    Ok(TokenView::new(info, Some(made.token)))
}

/// The token of the cluster for a role.
async fn standing(context: &Context, role: Role) -> Result<TokenView, Failure> {
    let cluster = cluster::only(context).await?;
    let tokens = cluster.root_ca.and_then(|root_ca| root_ca.join_tokens);
    let tokens = tokens.unwrap_or_default();
    let token = match role {
        Role::Worker => tokens.worker,
        Role::Manager => tokens.manager,
    };
    if token.is_empty() {
        return Err(Failure::refused("the cluster has no join tokens yet")
            .hint("try again when its first manager has started"));
    }
    let info = ext::JoinToken {
        role: role.name().to_owned(),
        state: "valid".to_owned(),
        ..Default::default()
    };
    Ok(TokenView::new(info, Some(token)))
}

async fn rotate(context: &Context, role: Role) -> Result<(), Failure> {
    let cluster = cluster::only(context).await?;
    let rotation = v1::KeyRotation {
        worker_join_token: role == Role::Worker,
        manager_join_token: role == Role::Manager,
        manager_unlock_key: false,
    };
    cluster::send(context, &cluster, cluster.spec.clone(), rotation).await
}

/// How a token is used.
struct Ways<'a> {
    /// What for.
    says: &'a str,
    /// With `swarmd`.
    own: bool,
    /// With the words of a Docker Engine.
    docker: Option<&'a str>,
}

impl Ways<'_> {
    fn text(&self, address: &str, token: &str) -> String {
        let own = format!("swarmd --join-addr {address} --join-token {token}");
        let docker = |words: &str| format!("{words} --token {token} {address}");
        let (first, second) = match (self.own, self.docker) {
            (true, Some(words)) => (own, Some(docker(words))),
            (false, Some(words)) => (docker(words), None),
            (_, None) => (own, None),
        };
        let mut text = format!("{}:\n\n    {first}\n\n", self.says);
        if let Some(second) = second {
            text.push_str(&format!("or, with a Docker Engine:\n\n    {second}\n\n"));
        }
        text
    }
}

/// The address of a manager, as nodes are told; a placeholder for the machine if no manager knows
/// an address that leads to it from elsewhere.
async fn manager_address(context: &Context) -> Result<String, Failure> {
    let manager = &context.manager;
    let mut control = manager.control();
    let listed = manager.call(control.list_nodes(v1::ListNodesRequest::default()));
    let managers = listed.await?.nodes.into_iter();
    let mut managers: Vec<_> = managers.filter_map(|node| node.manager_status).collect();
    managers.sort_by_key(|manager| !manager.leader);
    let addresses: Vec<String> = managers.into_iter().map(|manager| manager.addr).collect();
    Ok(dialled(&addresses))
}

async fn print(
    context: &Context,
    (quiet, format): (bool, Format),
    made: TokenView,
    ways: &Ways<'_>,
) -> Result<(), Failure> {
    let token = made.token.clone().unwrap_or_default();
    if quiet {
        return emit_line(&token);
    }
    if format == Format::Json {
        return emit_json(&made);
    }
    let address = manager_address(context).await?;
    let limits = match (&made.expires_at, made.uses_allowed) {
        (None, None) => String::new(),
        (_, uses) => {
            let at = made.until.as_ref().map(|at| format!(" until {at}"));
            let uses = match uses {
                None => String::new(),
                Some(1) => ", once".to_owned(),
                Some(uses) => format!(", {uses} times at most"),
            };
            let id = made.id.as_deref().unwrap_or_default();
            format!(
                "It is accepted{}{uses}; `swarmctl cluster tokens rm {id}` revokes it.\n",
                at.unwrap_or_default(),
            )
        }
    };
    emit(&format!("{}{limits}", ways.text(&address, &token)))
}

/// The first address that can be dialled. One that stands for all of a machine still has the port.
fn dialled(addresses: &[String]) -> String {
    let is_one = |address: &&String| !address.is_empty() && !net::is_unspecified(address);
    if let Some(known) = addresses.iter().find(is_one) {
        return known.clone();
    }
    let port = addresses.iter().find_map(|it| it.rsplit_once(':'));
    format!("MANAGER:{}", port.map_or("PORT", |(_, port)| port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_tells_limits_and_states() {
        let token = |id: &str, uses_allowed, node_id: &str, expires_at| ext::JoinToken {
            id: id.to_owned(),
            role: "worker".to_owned(),
            state: "valid".to_owned(),
            node_id: node_id.to_owned(),
            uses: 1,
            uses_allowed,
            expires_at,
            ..Default::default()
        };
        let at = Timestamp::from_millis(1_700_000_000_000).to_wire();
        let text = list(&[token("a", 0, "", None), token("b", 2, "n", Some(at))]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[2].contains("any worker") && lines[2].contains("never"),
            "{text}"
        );
        assert!(
            lines[3].contains("node n") && lines[3].contains("1/2"),
            "{text}"
        );
        assert!(lines[3].contains("2023-11-14"), "{text}");
    }

    #[test]
    fn a_token_is_shown_with_the_words_of_each_program() {
        let ways = |own, docker| Ways {
            says: "To join, run",
            own,
            docker,
        };
        let both = ways(true, Some("docker swarm join")).text("m:1", "T");
        let expected = "To join, run:\n\n    swarmd --join-addr m:1 --join-token T\n\n\
                        or, with a Docker Engine:\n\n    docker swarm join --token T m:1\n\n";
        assert_eq!(both, expected);
        let docker = ways(false, Some("docker swarm leave && docker swarm join"));
        let text = docker.text("m:1", "T");
        assert!(
            text.contains("leave && docker swarm join --token T m:1") && !text.contains("swarmd")
        );
        assert!(!ways(true, None).text("m:1", "T").contains("docker"));
    }

    #[test]
    fn an_address_that_leads_nowhere_leaves_the_machine_open() {
        let of = |addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|it| (*it).to_owned()).collect();
            dialled(&addresses)
        };
        assert_eq!(of(&["0.0.0.0:4242", "10.0.0.1:4242"]), "10.0.0.1:4242");
        assert_eq!(of(&["[::]:4242"]), "MANAGER:4242");
        assert_eq!(of(&[]), "MANAGER:PORT");
    }
}

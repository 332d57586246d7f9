//! Which host names a node may register with. A person tells nodes apart by them, in tables and on
//! terminals, and types them into commands.

use swarm_api::v1;
use swarm_types::{NodeId, printable};

use crate::error::DispatchError;

/// Characters of a refused name that the refusal repeats.
const SHOWN_MAX: usize = 64;

/// Checks the name in what a node says of itself.
///
/// # Errors
/// There is none, or it has characters that nobody sees.
pub(crate) fn check(node: &NodeId, description: &v1::NodeDescription) -> Result<(), DispatchError> {
    let name = description.hostname.as_str();
    if name.trim().is_empty() {
        return Err(DispatchError::no_hostname(node));
    }
    if name.chars().all(printable::is_printable) {
        return Ok(());
    }
    let shown: String = name.chars().take(SHOWN_MAX).collect();
    Err(DispatchError::bad_hostname(node, &printable::line(&shown)))
}

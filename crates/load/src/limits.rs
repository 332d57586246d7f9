//! Limits of the machine that stand in the way of thousands of connections.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Connections from one source address. The system has some 28,000 ports for each, a join uses
/// three, and two of them wait a minute before they can be used again.
const AGENTS_PER_ADDRESS: usize = 2_000;

/// Lets this process and its children open as many files as the system allows.
///
/// # Errors
/// When the system refuses to say or to change it.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

/// Refuses more agents than one process can hold.
///
/// # Errors
/// When the agents of a process need more files than it may open.
pub(crate) fn check_open_files(agents: usize) -> anyhow::Result<()> {
    // Besides its connection an agent that is joining has another one.
    let needed = agents as u64 + 512;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    anyhow::ensure!(
        needed <= hard,
        "{agents} agents in one process need {needed} open files, the limit is {hard}; raise \
         `ulimit -Hn`, or use more --processes"
    );
    Ok(())
}

/// The loopback address from which an agent dials a manager on loopback; any other manager is
/// dialled from wherever the system likes.
pub(crate) fn source(agent: usize, manager: IpAddr) -> Option<IpAddr> {
    let block = agent / AGENTS_PER_ADDRESS;
    let last = u8::try_from(block % 250).unwrap_or(0) + 2;
    manager
        .is_loopback()
        .then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_spread_over_addresses_of_loopback_and_over_no_others() {
        let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let of = |agent| source(agent, own).unwrap().to_string();
        assert_eq!(of(0), "127.0.1.2");
        assert_eq!(of(AGENTS_PER_ADDRESS - 1), "127.0.1.2");
        assert_eq!(of(AGENTS_PER_ADDRESS), "127.0.1.3");
        assert_eq!(source(0, "10.0.0.1".parse().unwrap()), None);
    }
}

//! What only this machine knows: its users, its ports, its size.

use std::ffi::CString;
use std::fs;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use swarm_api::v1::port_config::Protocol;

use crate::memory::Memory;
use crate::records::Credentials;
use crate::spec::{Account, Machine, Owner};

/// The number of the capability to mount, from capability(7).
const CAP_SYS_ADMIN: u32 = 21;
const NANOS_PER_CPU: u64 = 1_000_000_000;

/// The machine this process runs on.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocalMachine {
    pub(crate) path: Option<String>,
    /// The state directory of the executor.
    pub(crate) root: PathBuf,
}

impl Machine for LocalMachine {
    fn credentials(&self, user: &str, groups: &[String]) -> Result<Account, String> {
        if user.is_empty() && groups.is_empty() {
            return Ok(Account {
                credentials: None,
                home: home_of(geteuid()),
            });
        }
        let wanted = Wanted::look_up(user, groups)?;
        let home = home_of(wanted.uid);
        if geteuid().is_root() {
            return Ok(Account {
                credentials: Some(wanted.into_credentials()),
                home,
            });
        }
        wanted.check_is_us()?;
        Ok(Account {
            credentials: None,
            home,
        })
    }

    fn free_port(&self, protocol: Protocol) -> Result<u16, String> {
        let address = (Ipv6Addr::UNSPECIFIED, 0);
        let fallback = (std::net::Ipv4Addr::UNSPECIFIED, 0);
        let bound = match protocol {
            Protocol::Tcp => TcpListener::bind(address)
                .or_else(|_| TcpListener::bind(fallback))
                .and_then(|listener| listener.local_addr()),
            Protocol::Udp => UdpSocket::bind(address)
                .or_else(|_| UdpSocket::bind(fallback))
                .and_then(|socket| socket.local_addr()),
            Protocol::Sctp => return Err("sctp ports cannot be chosen; give a number".into()),
        };
        bound
            .map(|address| address.port())
            .map_err(|error| format!("no free port was found: {error}; give a published port"))
    }

    fn path(&self) -> Option<String> {
        self.path.clone()
    }

    fn payload_dir(&self, task: &str) -> Result<PathBuf, String> {
        Memory::find(&self.root).map(|memory| memory.of_task(task))
    }

    fn can_mount(&self) -> bool {
        geteuid().is_root() && has_capability(CAP_SYS_ADMIN)
    }

    fn file_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<Owner, String> {
        owner_for((geteuid().as_raw(), getegid().as_raw()), (uid, gid))
    }
}

/// Whom an agent of this user and group makes the owner of a file that is meant for another.
/// Clients say 0 when nobody chose. An agent of another user gives that to its own user, which is
/// root to its tasks as in a user namespace.
fn owner_for((user, group): (u32, u32), (uid, gid): Owner) -> Result<Owner, String> {
    if user == 0 {
        return Ok((uid, gid));
    }
    let (uid, gid) = (uid.filter(|id| *id != 0), gid.filter(|id| *id != 0));
    if uid.is_none_or(|uid| uid == user) && gid.is_none_or(|gid| gid == group) {
        return Ok((uid, gid));
    }
    Err(format!(
        "only an agent of root can give files away, this one is of user {user}; leave uid and gid \
         out"
    ))
}

/// Whether this process has a capability.
fn has_capability(number: u32) -> bool {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << number) != 0)
}

/// Processors of this machine in billionths.
pub(crate) fn nano_cpus() -> i64 {
    let count = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    i64::try_from(count.saturating_mul(NANOS_PER_CPU)).unwrap_or(i64::MAX)
}

/// Memory of this machine in bytes; 0 when the kernel does not tell.
pub(crate) fn memory_bytes() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    parse_memory(&text).unwrap_or(0)
}

/// Memory that programs can have without swapping, of how much; `None` when the kernel does not
/// tell.
pub(crate) fn memory_available() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let free = u64::try_from(parse_line(&text, "MemAvailable:")?).ok()?;
    let total = u64::try_from(parse_memory(&text)?).ok()?;
    Some((free, total))
}

/// The name of this machine.
pub(crate) fn hostname() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_owned()
}

fn parse_memory(meminfo: &str) -> Option<i64> {
    parse_line(meminfo, "MemTotal:")
}

fn parse_line(meminfo: &str, name: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn home_of(uid: Uid) -> PathBuf {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| PathBuf::from("/"), |user| user.dir)
}

/// The user and groups a spec names.
struct Wanted {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Wanted {
    /// `user` is `name`, `uid`, or either with `:group`; empty for our own.
    fn look_up(user: &str, groups: &[String]) -> Result<Self, String> {
        let (name, group) = match user.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (user, None),
        };
        let record = look_up_user(name)?;
        let uid = match &record {
            Some(record) => record.uid,
            None if name.is_empty() => geteuid(),
            None => Uid::from_raw(name.parse().map_err(|_| {
                format!("user: there is no {name:?} on this node; create it or use another")
            })?),
        };
        let gid = match (group, &record) {
            (Some(group), _) => look_up_group(group)?,
            (None, Some(record)) => record.gid,
            (None, None) if name.is_empty() => getegid(),
            // As in Docker: a number that nobody has gets group 0.
            (None, None) => Gid::from_raw(0),
        };
        let mut all = match (&record, group) {
            (Some(record), None) => groups_of(record)?,
            (Some(_) | None, _) => vec![gid],
        };
        for group in groups {
            all.push(look_up_group(group)?);
        }
        all.sort_unstable_by_key(|gid| gid.as_raw());
        all.dedup();
        Ok(Self {
            uid,
            gid,
            groups: all,
        })
    }

    fn into_credentials(self) -> Credentials {
        Credentials {
            uid: self.uid.as_raw(),
            gid: self.gid.as_raw(),
            groups: self.groups.iter().map(|gid| gid.as_raw()).collect(),
        }
    }

    fn check_is_us(&self) -> Result<(), String> {
        const WAY_OUT: &str = "run the agent as root or remove it";
        if self.uid != geteuid() {
            let (theirs, ours) = (self.uid, geteuid());
            return Err(format!(
                "user: {theirs} is not the agent's own user {ours}; {WAY_OUT}"
            ));
        }
        if self.gid != getegid() {
            let (theirs, ours) = (self.gid, getegid());
            return Err(format!(
                "user: group {theirs} is not the agent's own {ours}; {WAY_OUT}"
            ));
        }
        let ours = getgroups().unwrap_or_default();
        match self
            .groups
            .iter()
            .find(|gid| **gid != self.gid && !ours.contains(gid))
        {
            Some(missing) => Err(format!("groups: the agent is not in {missing}; {WAY_OUT}")),
            None => Ok(()),
        }
    }
}

/// By name first, as Docker does, then by number.
fn look_up_user(name: &str) -> Result<Option<User>, String> {
    let failed = |error| format!("user: {name:?} cannot be looked up on this node: {error}");
    if name.is_empty() {
        return Ok(None);
    }
    if let Some(user) = User::from_name(name).map_err(failed)? {
        return Ok(Some(user));
    }
    match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)).map_err(failed),
        Err(_) => Ok(None),
    }
}

fn look_up_group(name: &str) -> Result<Gid, String> {
    let failed = |error| format!("groups: {name:?} cannot be looked up on this node: {error}");
    if let Some(group) = Group::from_name(name).map_err(failed)? {
        return Ok(group.gid);
    }
    name.parse()
        .map(Gid::from_raw)
        .map_err(|_| format!("groups: there is no {name:?} on this node; create it or use another"))
}

fn groups_of(user: &User) -> Result<Vec<Gid>, String> {
    let name = CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
    getgrouplist(&name, user.gid)
        .map_err(|error| format!("groups of {} cannot be looked up: {error}", user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_not_root_stands_for_root() {
        let (nobody, root) = ((None, None), (Some(0), Some(0)));
        let theirs = (Some(7), Some(8));
        for owner in [nobody, root, theirs] {
            assert_eq!(owner_for((0, 0), owner), Ok(owner));
        }
        assert_eq!(owner_for((7, 8), root), Ok(nobody));
        assert_eq!(owner_for((7, 8), theirs), Ok(theirs));
        let refused = owner_for((9, 9), theirs).unwrap_err();
        assert!(refused.contains("this one is of user 9"), "{refused}");
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            parse_memory("MemFree: 1 kB\nMemTotal:   8 kB\n"),
            None.or(Some(8192))
        );
        assert_eq!(parse_memory("MemTotal: many kB"), None);
        assert_eq!(parse_memory(""), None);
    }

    #[test]
    fn no_user_means_our_own_and_an_unknown_one_is_refused_by_name() {
        let machine = LocalMachine::default();
        assert_eq!(machine.credentials("", &[]).unwrap().credentials, None);
        let error = machine.credentials("no-such-user", &[]).unwrap_err();
        assert!(
            error.starts_with("user: there is no \"no-such-user\""),
            "{error}"
        );
        let error = machine
            .credentials("", &["no-such-group".into()])
            .unwrap_err();
        assert!(
            error.starts_with("groups: there is no \"no-such-group\""),
            "{error}"
        );
    }

    #[test]
    fn another_user_is_refused_without_root() {
        let other = Uid::from_raw(geteuid().as_raw() + 1);
        let wanted = Wanted {
            uid: other,
            gid: getegid(),
            groups: vec![],
        };
        assert!(
            wanted
                .check_is_us()
                .unwrap_err()
                .contains("is not the agent's own user")
        );
        let wanted = Wanted {
            uid: geteuid(),
            gid: getegid(),
            groups: vec![getegid()],
        };
        assert!(wanted.check_is_us().is_ok());
    }

    #[test]
    fn free_ports_can_be_bound() {
        let port = LocalMachine::default().free_port(Protocol::Tcp).unwrap();
        assert_ne!(port, 0);
        assert!(LocalMachine::default().free_port(Protocol::Sctp).is_err());
    }
}

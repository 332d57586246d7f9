//! Values of flags that describe ports, mounts and limits.

use swarm_api::v1;
use v1::port_config::{Protocol, PublishMode};

use crate::units;

/// Reads `name:target[/protocol][:published[/protocol]]`. The port is published by the nodes that
/// run a task.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn port(text: &str) -> Result<v1::PortConfig, String> {
    let problem = || {
        format!(
            "{text:?} is not a port; write name:target[/protocol][:published[/protocol]], \
             as in web:80/tcp:8080"
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (name, target, published) = match parts[..] {
        [name, target] => (name, target, None),
        [name, target, published] => (name, target, Some(published)),
        _ => return Err(problem()),
    };
    let (target_port, protocol) = port_and_protocol(target).ok_or_else(problem)?;
    let (published_port, other) = match published {
        Some(published) => port_and_protocol(published).ok_or_else(problem)?,
        None => (0, None),
    };
    if protocol.is_some() && other.is_some() && protocol != other {
        return Err(format!("{text:?} names two protocols; a port has one"));
    }
    Ok(v1::PortConfig {
        name: name.to_owned(),
        protocol: protocol.or(other).unwrap_or(Protocol::Tcp) as i32,
        target_port: target_port.into(),
        published_port: published_port.into(),
        publish_mode: PublishMode::Host as i32,
    })
}

fn port_and_protocol(text: &str) -> Option<(u16, Option<Protocol>)> {
    let (port, protocol) = match text.split_once('/') {
        Some((port, "tcp")) => (port, Some(Protocol::Tcp)),
        Some((port, "udp")) => (port, Some(Protocol::Udp)),
        Some((port, "sctp")) => (port, Some(Protocol::Sctp)),
        Some(_) => return None,
        None => (text, None),
    };
    let port: u16 = port.parse().ok()?;
    (port > 0).then_some((port, protocol))
}

/// Reads `source:target`.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn bind(text: &str) -> Result<v1::Mount, String> {
    match text.split_once(':') {
        Some((source, target)) if !source.is_empty() && !target.is_empty() => Ok(v1::Mount {
            r#type: v1::mount::Type::Bind as i32,
            source: source.to_owned(),
            target: target.to_owned(),
            ..Default::default()
        }),
        Some(_) | None => Err(format!("{text:?} is not a bind mount; write source:target")),
    }
}

/// Reads the target of an anonymous volume.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn volume(text: &str) -> Result<v1::Mount, String> {
    if text.is_empty() || text.contains(':') {
        return Err(format!(
            "{text:?} is not the target of an anonymous volume; named volumes are not implemented \
             yet, use --bind source:target"
        ));
    }
    Ok(v1::Mount {
        r#type: v1::mount::Type::Volume as i32,
        target: text.to_owned(),
        ..Default::default()
    })
}

/// Reads `target[:size=N,mode=octal,ro,rw,exec,noexec]`.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn tmpfs(text: &str) -> Result<v1::Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if target.is_empty() {
        return Err(format!("{text:?} has no target"));
    }
    let mut mount = v1::Mount {
        r#type: v1::mount::Type::Tmpfs as i32,
        target: target.to_owned(),
        ..Default::default()
    };
    let mut tmpfs = v1::mount::TmpfsOptions::default();
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => tmpfs.size_bytes = units::bytes(size)?,
            Some(("mode", mode)) => {
                tmpfs.mode = u32::from_str_radix(mode, 8)
                    .map_err(|_| format!("{mode:?} is not an octal mode"))?;
            }
            None if option == "ro" => mount.readonly = true,
            None if option == "rw" => mount.readonly = false,
            None if matches!(option, "exec" | "noexec") => rest.push(option),
            Some(_) | None => {
                return Err(format!(
                    "{option:?} is no option of a tmpfs; there are size=, mode=, ro, rw, exec \
                     and noexec"
                ));
            }
        }
    }
    tmpfs.options = rest.join(",");
    mount.tmpfs_options = Some(tmpfs);
    Ok(mount)
}

/// Reads `name=soft[:hard]`; -1 stands for no limit.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn ulimit(text: &str) -> Result<v1::container_spec::Ulimit, String> {
    let problem = || format!("{text:?} is not a limit; write name=soft[:hard], as in nofile=1024");
    let (name, limits) = text.split_once('=').ok_or_else(problem)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| problem());
    if name.is_empty() {
        return Err(problem());
    }
    Ok(v1::container_spec::Ulimit {
        name: name.to_owned(),
        soft: number(soft)?,
        hard: number(hard)?,
    })
}

/// Reads generic resources, as `kind=amount,kind=amount`.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn generic(text: &str) -> Result<Generic, String> {
    swarm_types::resources::parse(text)
        .map(Generic)
        .map_err(|error| error.to_string())
}

/// A list behind one flag.
#[derive(Clone, Debug)]
pub(crate) struct Generic(pub(crate) Vec<v1::GenericResource>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_every_form_of_the_manual() {
        let read = |text: &str| {
            let port = port(text).unwrap();
            assert_eq!(port.publish_mode, PublishMode::Host as i32);
            (
                port.name,
                port.protocol,
                port.target_port,
                port.published_port,
            )
        };
        let (tcp, udp) = (Protocol::Tcp as i32, Protocol::Udp as i32);
        assert_eq!(read("web:80"), ("web".to_owned(), tcp, 80, 0));
        assert_eq!(read("web:80:8080"), ("web".to_owned(), tcp, 80, 8080));
        assert_eq!(read("dns:53/udp:5353"), ("dns".to_owned(), udp, 53, 5353));
        assert_eq!(read("dns:53/udp:53/udp"), ("dns".to_owned(), udp, 53, 53));
        assert_eq!(read(":65535"), (String::new(), tcp, 65_535, 0));
    }

    #[test]
    fn malformed_ports_are_refused() {
        for bad in [
            "",
            "80",
            "web",
            "web:",
            "web:0",
            "web:65536",
            "web:80:0",
            "web:80/icmp",
            "a:1:2:3",
            "web:80/tcp:80/udp",
            "web:-1",
        ] {
            assert!(
                port(bad).unwrap_err().contains(&format!("{bad:?}")),
                "{bad}"
            );
        }
    }

    #[test]
    fn mounts_are_read_or_refused() {
        let mount = bind("/a:/b").unwrap();
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/a", "/b"));
        for bad in ["", "/a", ":/b", "/a:"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
        assert_eq!(volume("/data").unwrap().target, "/data");
        assert!(volume("name:/data").is_err());
        assert!(volume("").is_err());
    }

    #[test]
    fn tmpfs_options_are_read_or_refused() {
        let mount = tmpfs("/t:size=64m,mode=1770,ro,noexec").unwrap();
        let options = mount.tmpfs_options.unwrap();
        assert!(mount.readonly);
        assert_eq!((options.size_bytes, options.mode), (64 << 20, 0o1770));
        assert_eq!(options.options, "noexec");
        assert_eq!(tmpfs("/t").unwrap().target, "/t");
        for bad in ["", ":ro", "/t:size=x", "/t:mode=9", "/t:sync", "/t:a=b"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits_have_one_or_two_numbers() {
        let limits = |text: &str| ulimit(text).map(|limit| (limit.soft, limit.hard));
        assert_eq!(limits("nofile=1024"), Ok((1024, 1024)));
        assert_eq!(limits("nofile=1024:-1"), Ok((1024, -1)));
        for bad in ["", "nofile", "nofile=", "=1", "nofile=a", "nofile=1:"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generic_resources_are_read_or_refused() {
        assert_eq!(generic("gpu=2").unwrap().0.len(), 1);
        assert!(generic("gpu=").is_err());
    }
}

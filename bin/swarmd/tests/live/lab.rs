//! A directory, a switch, and machines that are plugged into it.

use std::io::Write as _;
use std::path::PathBuf;

use crate::machine::Machine;
use crate::program;

/// Everything that the machines need on this host.
const PROGRAMS: [&str; 12] = [
    "setpriv",
    "unshare",
    "nsenter",
    "ip",
    "iptables",
    "sleep",
    "bash",
    "tar",
    "busybox",
    "dockerd",
    "docker",
    "docker-init",
];
/// The first three numbers of every address.
const PREFIX: &str = "10.77.0";

/// A network of machines. Dropping it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Lab {
    switch: Machine,
    directory: tempfile::TempDir,
}

impl Lab {
    /// `None` where this host cannot have machines; the reason is printed.
    ///
    /// # Panics
    /// Instead, when `SWARM_LIVE=required` says that it must.
    pub(crate) async fn start() -> Option<Self> {
        match Self::try_start().await {
            Ok(lab) => Some(lab),
            Err(reason) if is_required() => panic!("live tests are required: {reason}"),
            Err(reason) => {
                // A closed standard error must not fail the test.
                let _ = writeln!(std::io::stderr().lock(), "skipped: {reason}");
                None
            }
        }
    }

    async fn try_start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("live tests need root".to_owned());
        }
        for name in PROGRAMS {
            let found = program::host(&["sh", "-c", &format!("command -v {name}")]).await;
            found.map_err(|_| format!("live tests need {name}; .ci/run installs it"))?;
        }
        let switch = Machine::start("switch").await?;
        switch
            .run(&["ip", "link", "add", "br0", "type", "bridge"])
            .await?;
        switch.run(&["ip", "link", "set", "br0", "up"]).await?;
        let directory = tempfile::Builder::new().prefix("swarm-live-").tempdir();
        Ok(Self {
            switch,
            directory: directory.map_err(|error| error.to_string())?,
        })
    }

    /// Where a machine keeps its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Plugs a new machine in, with [`address`] and no route to anywhere else.
    pub(crate) async fn machine(&self, name: &str, number: u8) -> Machine {
        let machine = Machine::start(name).await.unwrap();
        std::fs::create_dir_all(self.path(name)).unwrap();
        let (holder, port) = (machine.holder(), self.port(number));
        let plug = format!("{port}p");
        self.on_switch(&[
            "ip", "link", "add", &port, "type", "veth", "peer", "name", &plug,
        ])
        .await;
        // The switch sees processes of its own namespace only, so the host moves the plug.
        let switch = format!("--target={}", self.switch.holder());
        let moves = [
            "nsenter", &switch, "--net", "ip", "link", "set", &plug, "netns", &holder,
        ];
        program::host(&moves).await.unwrap();
        self.on_switch(&["ip", "link", "set", &port, "master", "br0", "up"])
            .await;
        let address = format!("{}/24", address(number));
        for words in [
            &["ip", "link", "set", &plug, "name", "eth0"][..],
            &["ip", "address", "add", &address, "dev", "eth0"],
            &["ip", "link", "set", "eth0", "up"],
        ] {
            machine.run(words).await.unwrap();
        }
        machine
    }

    /// Cuts the cable of a machine.
    pub(crate) async fn cut(&self, number: u8) {
        let port = self.port(number);
        self.on_switch(&["ip", "link", "set", &port, "down"]).await;
    }

    /// Mends it.
    pub(crate) async fn mend(&self, number: u8) {
        let port = self.port(number);
        self.on_switch(&["ip", "link", "set", &port, "up"]).await;
    }

    fn port(&self, number: u8) -> String {
        format!("port{number}")
    }

    async fn on_switch(&self, words: &[&str]) {
        self.switch.run(words).await.unwrap();
    }
}

/// The address of a machine.
pub(crate) fn address(number: u8) -> String {
    format!("{PREFIX}.{number}")
}

#[allow(clippy::disallowed_methods)] // A test has no flags.
fn is_required() -> bool {
    std::env::var("SWARM_LIVE").is_ok_and(|value| value == "required")
}

//! Programs that end by themselves, run with a deadline.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Longest run of a helper program.
const RUN_MAX: Duration = Duration::from_secs(30);

/// What a program wrote, standard output first; its errors if it failed.
pub(crate) async fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{:?}", command.as_std());
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let output = match tokio::time::timeout(RUN_MAX, child.wait_with_output()).await {
        Ok(output) => output.map_err(|error| format!("{shown}: {error}"))?,
        Err(_) => return Err(format!("{shown}: still running after {RUN_MAX:?}")),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        Ok(out)
    } else {
        Err(format!("{shown}: {}\n{out}{err}", output.status))
    }
}

/// The same for a program of the host, as words.
pub(crate) async fn host(words: &[&str]) -> Result<String, String> {
    run(Command::new(words[0]).args(&words[1..])).await
}

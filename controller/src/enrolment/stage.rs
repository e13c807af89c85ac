//! An agent on its way to a router: sent into a directory of its own, compared, and tried out there.

use data_encoding::HEXLOWER;

use super::Error;
use super::shell::Shell;
use super::suitability::Unsupported;
use super::survey::Survey;
use crate::client::ssh::RemoteMessage;
/// Exit codes by which a shell says that a program cannot be executed (POSIX, 2.8.2), and the first that means a signal.
const NOT_EXECUTABLE: std::ops::RangeInclusive<i32> = 126..=127;
const SIGNALLED: i32 = 128;

/// Sends an agent into `stage`, and makes sure that it arrived.
pub(super) async fn send(shell: &Shell, stage: &str, agent: &[u8]) -> Result<(), Error> {
    let receive = format!("umask 077; echo $$ >{stage}/busy; exec cat >{stage}/hopd");
    shell.command("sending the agent", &receive, agent).await?;
    shell.command("sending the agent", &format!("rm {stage}/busy; chmod 755 {stage}/hopd"), b"").await?;
    let (expected, found) = (sha256(agent), digest_of(shell, &format!("{stage}/hopd")).await?);
    if found == expected { Ok(()) } else { Err(Error::Damaged { expected, found }) }
}

/// The digest of an agent that was sent to a directory of root's own, as hexadecimal digits. Where there is no sha256sum the
/// agent counts what it is made of.
pub(super) async fn digest_of(shell: &Shell, path: &str) -> Result<String, Error> {
    let said = shell.attempt(&format!("sha256sum {path} 2>/dev/null || {path} --digest")).await?;
    let text = String::from_utf8_lossy(&said.stdout);
    Ok(text.split_whitespace().next().unwrap_or("nothing that can be read").to_owned())
}

/// Runs the agent's self-test on the router.
pub(super) async fn try_out(shell: &Shell, host: &str, stage: &str, survey: &Survey) -> Result<(), Error> {
    let host = host.to_owned();
    let tested = shell.attempt(&format!("{stage}/hopd --self-test --dir {stage}/test 2>&1")).await?;
    let code = tested.status.code().unwrap_or(SIGNALLED);
    if code == 0 {
        return Ok(());
    }
    if NOT_EXECUTABLE.contains(&code) || code >= SIGNALLED {
        if survey.is_mips64() {
            return Err(Error::Unsupported { host, why: Unsupported::NoO32 });
        }
        let how = String::from_utf8_lossy(&tested.stdout).lines().last().unwrap_or_default().to_owned();
        let how = if how.is_empty() { format!("it exited with {code}") } else { how };
        return Err(Error::NotExecuted { host, source: RemoteMessage(how) });
    }
    let text = String::from_utf8_lossy(&tested.stdout);
    let failed =
        text.lines().filter_map(|line| line.strip_prefix("FAILED")).map(|line| line.trim().to_owned());
    Err(Error::SelfTest { host, failed: failed.collect() })
}

pub(super) fn sha256(content: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, content).as_ref())
}

/// Sixteen digits that nobody guesses, because others may write to a router's /tmp.
pub(super) fn random_name() -> String {
    let mut bytes = [0; 8];
    // Without random numbers there would have been no key either.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    HEXLOWER.encode(&bytes)
}

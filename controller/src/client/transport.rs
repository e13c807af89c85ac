//! The byte stream below TLS: a TCP connection, or a channel of the user's own ssh.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::ssh::RemoteMessage;
use crate::config::inventory::Entry;

/// Bytes that are read of what ssh says, and how long to wait for it after the channel closed.
const MAX_STDERR_BYTES: u64 = 4096;
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// A byte stream to an agent.
#[derive(Debug)]
pub enum Transport {
    /// Straight to it.
    Tcp(TcpStream),
    /// In an ssh channel. The process ends when this is dropped.
    Ssh {
        /// ssh itself.
        process: Box<Child>,
        /// Its input, which goes to the agent.
        stdin: ChildStdin,
        /// Its output, which comes from the agent.
        stdout: ChildStdout,
    },
}

/// The messages of ssh, in case the channel breaks.
#[derive(Debug)]
pub struct SshStderr(Option<ChildStderr>);

impl Transport {
    /// Connects as the inventory says.
    ///
    /// # Errors
    /// Nobody answers, or ssh cannot be run. What goes wrong in ssh later is in the [`SshStderr`].
    pub async fn open(entry: &Entry) -> io::Result<(Self, SshStderr)> {
        match entry.enrolment.as_ref().filter(|enrolment| enrolment.via_ssh) {
            Some(enrolment) => {
                let mut process = enrolment.ssh.channel(&entry.address).map_err(io::Error::other)?;
                let no_pipe = || io::Error::other("ssh has no pipes");
                let stdin = process.stdin.take().ok_or_else(no_pipe)?;
                let stdout = process.stdout.take().ok_or_else(no_pipe)?;
                let last_words = SshStderr(process.stderr.take());
                Ok((Self::Ssh { process: Box::new(process), stdin, stdout }, last_words))
            }
            None => {
                let stream = match link_local(&entry.address) {
                    Some(host_and_port) => TcpStream::connect(host_and_port).await?,
                    None => TcpStream::connect(&entry.address).await?,
                };
                // Standard input is small and wanted now.
                stream.set_nodelay(true)?;
                Ok((Self::Tcp(stream), SshStderr(None)))
            }
        }
    }
}

/// The host and the port of an address with the name of an interface, `[fe80::1%eth0]:4670` (RFC 4007, section 11), which
/// the standard library reads only with the number of the interface; getaddrinfo(3) knows the name.
fn link_local(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.strip_prefix('[')?.split_once("]:")?;
    Some((host.contains('%').then_some(host)?, port.parse().ok()?))
}

impl SshStderr {
    /// Waits for them, shortly.
    pub async fn get(self) -> Option<RemoteMessage> {
        let mut said = Vec::new();
        let reading = async { self.0?.take(MAX_STDERR_BYTES).read_to_end(&mut said).await.ok() };
        // Messages that come before the time limit count.
        let _ = tokio::time::timeout(STDERR_TIMEOUT, reading).await;
        (!said.is_empty()).then(|| RemoteMessage::last_line(&said))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Ssh { stdout, .. } => Pin::new(stdout).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, data),
            Self::Ssh { stdin, .. } => Pin::new(stdin).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Ssh { stdin, .. } => Pin::new(stdin).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Ssh { stdin, .. } => Pin::new(stdin).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::link_local;

    #[test]
    fn scoped_address_names_its_interface() {
        assert_eq!(link_local("[fe80::1%br-lan.1]:4670"), Some(("fe80::1%br-lan.1", 4670)));
        for other in
            ["192.168.1.1:4670", "[fe80::1]:4670", "router.lan:4670", "[fe80::1%eth0]", "[fe80::1%eth0]:x"]
        {
            assert_eq!(link_local(other), None, "{other}");
        }
    }
}

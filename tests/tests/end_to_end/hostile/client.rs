//! A controller with an authorized key that speaks HTTP/2 by hand (RFC 9113), over Hop's TLS.

use std::sync::Arc;
use std::time::Duration;

use hop_proto::tls;
use hop_tests::{TIMEOUT, VirtualRouter};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long an agent may not read before a flood is taken to be stemmed.
const STEMMED: Duration = Duration::from_secs(2);

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags: the last frame of a call; the last frame of its headers.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// The headers of a call of `hop.v1.AgentService`, without compression (RFC 7541).
pub fn call(method: &str) -> Vec<u8> {
    let path = format!("/hop.v1.AgentService/{method}");
    // POST, https; the path is not put into the table.
    [&b"\x83\x87\x04"[..], &[u8::try_from(path.len()).unwrap()], path.as_bytes()].concat()
}

/// What is before a message of gRPC, and what of it is sent.
pub fn message(announced: u32, content: &[u8]) -> Vec<u8> {
    [&[0][..], &announced.to_be_bytes(), content].concat()
}

/// A connection, and what the agent says on it.
pub struct RawClient {
    writer: WriteHalf<TlsStream<TcpStream>>,
    /// What the agent says, until it ends the connection.
    frames: mpsc::UnboundedReceiver<Frame>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub content: Vec<u8>,
}

/// A connection that has spoken no HTTP/2 yet.
pub async fn secure(router: &VirtualRouter) -> TlsStream<TcpStream> {
    let identity = router.home().identity().unwrap();
    let config = tls::client_config(&identity, router.fingerprint).unwrap();
    let socket = TcpStream::connect(&router.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(tls::server_name(), socket).await.unwrap()
}

/// What a connection begins with (RFC 9113, section 3.4).
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat()
}

impl RawClient {
    pub async fn connect(router: &VirtualRouter) -> Self {
        let (reader, writer) = tokio::io::split(secure(router).await);
        let (tell, frames) = mpsc::unbounded_channel();
        let mut client = Self { writer, frames, reader: tokio::spawn(read(reader, tell)) };
        client.send(&preface()).await;
        client
    }

    pub async fn send(&mut self, said: &[u8]) {
        self.writer.write_all(said).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    /// Sends pieces, as long as the agent takes them: until it ends the connection, or reads no more of it.
    pub async fn flood(&mut self, pieces: impl Iterator<Item = Vec<u8>>) {
        let mut together = Vec::new();
        for piece in pieces {
            together.extend_from_slice(&piece);
            if together.len() < 16 * 1024 {
                continue;
            }
            let sent = async {
                self.writer.write_all(&together).await?;
                self.writer.flush().await
            };
            match tokio::time::timeout(STEMMED, sent).await {
                Ok(Ok(())) if !self.reader.is_finished() => together.clear(),
                _ => return,
            }
            tokio::task::yield_now().await;
        }
    }

    /// The next frame; nothing if the agent has closed the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(TIMEOUT, self.frames.recv()).await.expect("the agent says something")
    }

    /// Waits until the agent has refused so many calls, each by a HEADERS frame.
    pub async fn refusals(&mut self, count: usize) {
        for refused in 0..count {
            while self.next().await.unwrap_or_else(|| panic!("{refused} are refused")).kind != HEADERS {}
        }
    }

    /// Waits until the agent closes the connection, and returns the frames that it sent.
    pub async fn ended(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Sends no more, and waits until the agent ends the connection.
    pub async fn finish(mut self) {
        // It may have ended it already.
        let _ = self.writer.shutdown().await;
        self.ended().await;
    }
}

/// The reason that the agent gives for the end of a connection (RFC 9113, section 7).
pub fn reason(frames: &[Frame]) -> Option<u32> {
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY)?;
    Some(u32::from_be_bytes(last.content[4..8].try_into().unwrap()))
}

async fn read(mut reader: ReadHalf<TlsStream<TcpStream>>, tell: mpsc::UnboundedSender<Frame>) {
    loop {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if reader.read_exact(&mut content).await.is_err() {
            return;
        }
        // Of a flood there are many answers, none of which is looked at.
        if head[3] != PING && head[3] != SETTINGS && tell.send(Frame { kind: head[3], content }).is_err() {
            return;
        }
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

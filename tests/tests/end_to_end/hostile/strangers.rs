//! Strangers: clients without a key, which try to lock out the controllers that have one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hop_proto::tls;
use hop_tests::{Target, VirtualRouter, fixture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::attacked_router::AttackedRouter;
use super::client::block_on;
use crate::plan::Case;

pub const ALL: &[Case] = &cases![
    strangers_with_hellos_lock_nobody_out,
    strangers_lock_nobody_out,
    strangers_lock_nobody_out_on_mips,
];

/// The bound of the specification for `hop ps`.
const LIMIT: Duration = Duration::from_secs(2);

/// How often a stranger connects again, if the agent does not close its connection sooner.
const RENEWAL: Duration = Duration::from_secs(1);

/// How far a stranger goes.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    HalfAHello,
    AHello,
}

/// Strangers that come again and again, until this is dropped.
struct Crowd {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Comes as so many strangers of each kind from an address.
    fn start(router: &VirtualRouter, from: Ipv4Addr, kinds: &[(Says, usize)]) -> Self {
        let (stop, stopped) = oneshot::channel();
        let to: SocketAddr = router.address.parse().unwrap();
        let (hello, kinds) = (client_hello(router), kinds.to_vec());
        let thread = thread::spawn(move || {
            block_on(async {
                for (says, count) in kinds {
                    let said: Arc<[u8]> = match says {
                        Says::Nothing => [].into(),
                        Says::HalfAHello => hello[..hello.len() / 2].into(),
                        Says::AHello => hello[..].into(),
                    };
                    for _ in 0..count {
                        tokio::spawn(come_again_and_again(from, to, said.clone()));
                    }
                }
                // An error is that the crowd was dropped.
                let _ = stopped.await;
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop = None;
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn come_again_and_again(from: Ipv4Addr, to: SocketAddr, said: Arc<[u8]>) {
    loop {
        // Tries again after a failure: the agent may close the connection at any time.
        let _ = tokio::time::timeout(RENEWAL, come(from, to, &said)).await;
        tokio::task::yield_now().await;
    }
}

async fn come(from: Ipv4Addr, to: SocketAddr, said: &[u8]) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream: TcpStream = socket.connect(to).await?;
    stream.write_all(said).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    // The agent has closed the connection. Waits a little, as an attacker with few sockets does.
    std::future::pending().await
}

/// The first message of a controller.
fn client_hello(router: &VirtualRouter) -> Vec<u8> {
    let identity = router.home().identity().unwrap();
    let config = tls::client_config(&identity, router.fingerprint).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), tls::server_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Lists the jobs again and again, each time with success. Returns the times that this took, the shortest first.
fn list_jobs(attacked: &AttackedRouter, tries: usize) -> Vec<Duration> {
    let mut times: Vec<_> = (0..tries)
        .map(|number| {
            let since = Instant::now();
            let ran = attacked.bystander().args(["ps", "-r", "router"]).run();
            assert_eq!(ran.code, 0, "try {number}: {}", ran.stderr());
            since.elapsed()
        })
        .collect();
    times.sort();
    times
}

/// Strangers connect from the address of controllers that have a key, and the agent still serves these.
fn besiege(target: Target) {
    let attacked = AttackedRouter::start(target);
    let proxy = attacked.router.proxy();
    let program = fixture(target, "counter");
    let mut running =
        attacked.router.hop().args(["exec", "-r", "proxied"]).arg(program).args(["100", "-"]).start();
    let mut output = running.line();
    let crowd =
        Crowd::start(&attacked.router, Ipv4Addr::LOCALHOST, &[(Says::Nothing, 30), (Says::HalfAHello, 30)]);
    for tries in [5, 5] {
        // A link that breaks meanwhile heals.
        output.push_str(&running.line());
        proxy.reset();
        let times = list_jobs(&attacked, tries);
        // Not the longest: this machine may do something else for a while.
        assert!(times[tries / 2] < LIMIT, "{times:?}");
    }
    let ran = running.wait();
    output.push_str(ran.stdout());
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!((output, ran.code), (expected, 7), "{}", ran.stderr());
    drop(crowd);
    attacked.assert_unharmed("strangers");
    assert_refusals_are_bounded(&attacked);
}

fn strangers_with_hellos_lock_nobody_out() {
    let attacked = AttackedRouter::start(Target::Host);
    // One that goes on is thrown out for another one after two seconds. The crowd has an address of its own.
    let crowd = Crowd::start(&attacked.router, Ipv4Addr::new(127, 0, 0, 2), &[(Says::AHello, 60)]);
    list_jobs(&attacked, 5);
    drop(crowd);
    attacked.assert_unharmed("strangers with hellos");
    assert_refusals_are_bounded(&attacked);
}

fn strangers_lock_nobody_out() {
    besiege(Target::Host);
}

fn strangers_lock_nobody_out_on_mips() {
    besiege(Target::DIR_505);
}

/// Hundreds were refused, and the log has the first of them, and a line a minute.
fn assert_refusals_are_bounded(attacked: &AttackedRouter) {
    let log = attacked.router.log();
    let refused = log.lines().filter(|line| line.contains("refused")).count();
    assert!((1..=4).contains(&refused), "{log}");
}

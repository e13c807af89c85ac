//! A TCP proxy between `hop` and a router, which a test can make fail.
//!
//! **Invariants:** a proxy that is cut loses no data, as TCP retransmits unacknowledged data: the data arrives when the
//! proxy is mended. Neither end sees the cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::TIMEOUT;

/// A proxy from a port of this machine to a router. It passes bytes on until it is cut.
pub struct FaultProxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    /// The test is over.
    is_gone: bool,
    to_router: Traffic,
    from_router: Traffic,
    /// How many connections there ever were.
    count: usize,
    /// Both ends of every connection.
    connections: Vec<TcpStream>,
}

/// What goes one way.
#[derive(Default)]
struct Traffic {
    /// Bytes that were forwarded.
    sent: u64,
    /// Cuts the proxy after so many bytes.
    cut_at: Option<u64>,
}

impl State {
    fn traffic(&mut self, is_to_router: bool) -> &mut Traffic {
        if is_to_router { &mut self.to_router } else { &mut self.from_router }
    }

    fn mend(&mut self) {
        self.is_cut = false;
        (self.to_router.cut_at, self.from_router.cut_at) = (None, None);
    }
}

impl FaultProxy {
    /// A whole proxy to `target`.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, changed) = Default::default();
        let shared = Arc::new(Shared { target: target.to_owned(), state, changed });
        let accepting = shared.clone();
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// The address on which it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many bytes went through it, to the router and from it.
    pub fn carried(&self) -> (u64, u64) {
        let state = self.shared.state();
        (state.to_router.sent, state.from_router.sent)
    }

    /// How many connections there ever were through it.
    pub fn connections(&self) -> usize {
        self.shared.state().count
    }

    /// Cuts it.
    pub fn cut(&self) {
        self.shared.state().is_cut = true;
    }

    /// Cuts it when `bytes` have gone to the router from now on.
    pub fn cut_after(&self, bytes: u64) {
        self.cut_when(true, bytes);
    }

    /// Cuts it when `bytes` have come from the router from now on.
    pub fn cut_after_received(&self, bytes: u64) {
        self.cut_when(false, bytes);
    }

    fn cut_when(&self, is_to_router: bool, bytes: u64) {
        let mut state = self.shared.state();
        let traffic = state.traffic(is_to_router);
        traffic.cut_at = Some(traffic.sent + bytes);
    }

    /// Waits until it was cut.
    pub fn wait_until_cut(&self) {
        let state = self.shared.state();
        let (state, _) =
            self.shared.changed.wait_timeout_while(state, TIMEOUT, |state| !state.is_cut).unwrap();
        assert!(state.is_cut, "so much is sent");
    }

    /// Makes it whole again.
    pub fn mend(&self) {
        self.shared.state().mend();
        self.shared.changed.notify_all();
    }

    /// Breaks all connections, which both ends see, and is whole again for new ones.
    pub fn reset(&self) {
        let mut state = self.shared.state();
        for connection in state.connections.drain(..) {
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
        state.mend();
        self.shared.changed.notify_all();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.reset();
        self.shared.state().is_gone = true;
        self.shared.changed.notify_all();
        // Wakes the thread that accepts, so that it sees `is_gone`.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until the proxy is whole; gives an error when the test is over.
    fn whole(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.changed.wait_while(self.state(), |state| state.is_cut && !state.is_gone).unwrap();
        if state.is_gone { Err(io::ErrorKind::Interrupted.into()) } else { Ok(state) }
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((near, _)) = listener.accept() {
            if self.state().is_gone {
                return;
            }
            let shared = self.clone();
            thread::spawn(move || shared.connect(near));
        }
    }

    fn connect(self: Arc<Self>, near: TcpStream) {
        let connected = self.whole().and_then(|_whole| TcpStream::connect(&self.target));
        // A router that does not answer shows as a connection that closes.
        let Ok(far) = connected else { return };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ends = [&near, &far].map(|end| end.try_clone().unwrap());
        let mut state = self.state();
        state.count += 1;
        state.connections.extend(ends);
        drop(state);
        let (shared, from_near, to_far) = (self.clone(), near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::spawn(move || shared.carry(from_near, to_far, true));
        thread::spawn(move || self.carry(far, near, false));
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, is_to_router: bool) {
        let mut buffer = [0; 16 * 1024];
        // When one end closes, the proxy closes the other.
        let _ = self.carry_all(&mut from, &mut to, &mut buffer, is_to_router);
        let _ = to.shutdown(Shutdown::Write);
    }

    fn carry_all(
        &self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        is_to_router: bool,
    ) -> io::Result<()> {
        loop {
            let count = from.read(buffer)?;
            let mut data = &buffer[..count];
            while !data.is_empty() {
                let mut state = self.whole()?;
                let mut now = data.len();
                let traffic = state.traffic(is_to_router);
                let mut is_cut = false;
                if let Some(cut_at) = traffic.cut_at {
                    now = now.min(usize::try_from(cut_at - traffic.sent).unwrap());
                    is_cut = traffic.sent + now as u64 == cut_at;
                    traffic.cut_at = traffic.cut_at.filter(|_| !is_cut);
                }
                traffic.sent += now as u64;
                if is_cut {
                    state.is_cut = true;
                    self.changed.notify_all();
                }
                drop(state);
                to.write_all(&data[..now])?;
                data = &data[now..];
            }
            if count == 0 {
                // A cut delays the end of the stream like its data.
                drop(self.whole()?);
                return Ok(());
            }
        }
    }
}

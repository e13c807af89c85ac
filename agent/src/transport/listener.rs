//! Listens for controllers: on one network interface and the loopback, or on all addresses of the router.
//!
//! A socket that is bound to an interface (SO_BINDTODEVICE, socket(7)) gets the connections that arrive there, whatever
//! the addresses of the router are, and no others: from the other side of the WAN there is no open port, even if the
//! firewall is off. The agent also listens on the loopback, for connections that an SSH session forwards.
//!
//! **Invariants:** with a named interface, the agent accepts nothing from any other one but the loopback. The socket
//! follows the interface, which has a new index after the network was restarted.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};

/// The name for all interfaces.
pub const ANY: &str = "any";

/// The name of the loopback interface.
const LOOPBACK: &str = "lo";

/// How often to check whether the interface still has its index. A check takes one system call, and a restart of the
/// network takes longer than this interval.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Connections that the kernel queues until the agent accepts them: tokio's own default.
const BACKLOG: u32 = 1024;

/// How long the kernel holds back a connection on which no data has arrived yet, in whole seconds. It takes some 300
/// bytes there, and the kernel hands it over after that time even so.
const DEFER_ACCEPT_SECONDS: libc::c_int = 1;

/// Open sockets.
pub struct Listener {
    address: SocketAddr,
    interface: Option<Interface>,
    socket: Option<TcpListener>,
    loopback: Option<TcpListener>,
}

struct Interface {
    name: String,
    /// Its index when the socket was bound to it; 0 if the interface did not exist.
    index: u32,
    looked_at: Instant,
}

impl Listener {
    /// Listens on `address`; if `interface` names one, only on that interface and on the loopback. Waits for an
    /// interface that does not exist yet.
    ///
    /// # Errors
    /// The address is in use or not one of the router's, or the kernel cannot bind the sockets to an interface.
    pub async fn bind(address: SocketAddr, interface: Option<&str>) -> io::Result<Self> {
        let Some(name) = interface.filter(|name| *name != ANY) else {
            let socket = TcpListener::bind(address).await?;
            defer_accept(&socket);
            let address = socket.local_addr()?;
            return Ok(Self { address, interface: None, socket: Some(socket), loopback: None });
        };
        let mut interface =
            Interface { name: name.to_owned(), index: index_of(name), looked_at: Instant::now() };
        let mut address = address;
        let mut socket = None;
        if interface.index != 0 {
            let bound = bind_to(address, name)?;
            // The loopback gets the port that the kernel has chosen.
            address.set_port(bound.local_addr()?.port());
            socket = Some(bound);
        } else {
            tracing::warn!(interface = %name, "there is no such network interface; waiting for it");
        }
        let mut loopback = None;
        if name != LOOPBACK && address.ip().is_unspecified() {
            let ip: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let bound = bind_to(SocketAddr::new(ip, address.port()), LOOPBACK)?;
            address.set_port(bound.local_addr()?.port());
            loopback = Some(bound);
        }
        interface.looked_at = Instant::now();
        Ok(Self { address, interface: Some(interface), socket, loopback })
    }

    /// The listening address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Describes where the agent listens, to show to users.
    pub fn describe(&self) -> String {
        let address = self.address;
        match &self.interface {
            None if address.ip().is_unspecified() => format!("port {} of every interface", address.port()),
            None => address.to_string(),
            Some(Interface { name, .. }) if self.loopback.is_some() => {
                format!("port {} of {name} and of the loopback", address.port())
            }
            Some(Interface { name, .. }) => format!("{address} of {name}"),
        }
    }

    /// Accepts the next connection. Cancel safe.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let look_at = self.interface.as_ref().map(|interface| interface.looked_at + POLL_INTERVAL);
            tokio::select! {
                accepted = accept_from(self.socket.as_ref()) => return accepted,
                accepted = accept_from(self.loopback.as_ref()) => return accepted,
                () = at(look_at) => self.follow_interface(),
            }
        }
    }

    /// Binds to the interface again if its index has changed.
    fn follow_interface(&mut self) {
        let Some(interface) = &mut self.interface else { return };
        interface.looked_at = Instant::now();
        let index = index_of(&interface.name);
        if index == interface.index && (index == 0 || self.socket.is_some()) {
            return;
        }
        interface.index = index;
        // Closes the old socket first, because both use one port.
        self.socket = None;
        if index == 0 {
            tracing::warn!(interface = %interface.name, "the network interface is gone; waiting for it");
            return;
        }
        match bind_to(self.address, &interface.name) {
            Ok(socket) => {
                tracing::info!(interface = %interface.name, "listening on the network interface");
                self.socket = Some(socket);
            }
            // The next check tries again.
            Err(error) => {
                tracing::warn!(interface = %interface.name, %error, "cannot listen on the network interface");
            }
        }
    }
}

async fn accept_from(socket: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match socket {
        Some(socket) => socket.accept().await,
        None => std::future::pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Listens on one interface alone.
fn bind_to(address: SocketAddr, interface: &str) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Before bind: otherwise two sockets on one port would conflict.
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(address)?;
    let socket = socket.listen(BACKLOG)?;
    defer_accept(&socket);
    Ok(socket)
}

/// Makes the kernel hold back connections until their first data arrives (tcp(7)). A kernel without this option hands
/// silent connections over at once; `acceptor` bounds these as well.
fn defer_accept(listener: &TcpListener) {
    let seconds = DEFER_ACCEPT_SECONDS;
    // SAFETY: the descriptor is open, and the option is an int of the given size.
    unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        );
    }
}

/// The index of an interface; 0 if there is none with this name.
fn index_of(name: &str) -> u32 {
    let Ok(name) = CString::new(name) else { return 0 };
    // SAFETY: the pointer is to a zero-terminated string that lives until the call returns.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// Why the agent cannot tell through which interface the router reaches an address.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The text is not an IP address.
    #[error("{0:?} is no IP address")]
    NoAddress(String),
    /// The kernel has no route, or cannot list its addresses.
    #[error("cannot find the route to {address}: {source}")]
    NoWay {
        /// The destination.
        address: IpAddr,
        /// The kernel's error.
        source: io::Error,
    },
    /// No interface has the source address of the route.
    #[error("no network interface has the address {0}")]
    NoInterface(IpAddr),
}

/// The interface through which the router reaches `address`: the one that has the source address of the kernel's route.
/// The connections of a peer with this address arrive there, whichever of the router's addresses it connects to.
///
/// # Errors
/// [`InterfaceError`].
pub fn interface_to(address: &str) -> Result<String, InterfaceError> {
    let malformed = || InterfaceError::NoAddress(address.to_owned());
    let (ip, scope) = address.split_once('%').map_or((address, None), |(ip, scope)| (ip, Some(scope)));
    let peer = ip.parse::<IpAddr>().map_err(|_| malformed())?.to_canonical();
    if let Some(scope) = scope {
        // A link-local address names its interface itself.
        return Ok(scope.to_owned());
    }
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Sends nothing: connecting a UDP socket only selects a route (udp(7)). Any port but 0 will do.
    let own = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((peer, 9)).and_then(|()| socket.local_addr()))
        .and_then(|own| Ok((own.ip(), interface_with(own.ip())?)));
    match own {
        Ok((_, Some(interface))) => Ok(interface),
        Ok((own, None)) => Err(InterfaceError::NoInterface(own)),
        Err(source) => Err(InterfaceError::NoWay { address: peer, source }),
    }
}

/// The interface that has an address, from the kernel's list of interfaces.
fn interface_with(address: IpAddr) -> io::Result<Option<String>> {
    let mut list = ptr::null_mut();
    // SAFETY: the pointer is to a live value, which the call sets if it succeeds.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    let mut next = list;
    // SAFETY: getifaddrs returned the list, which ends with a null pointer and is freed below.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: an address is null, or has the type that its family names.
        if unsafe { ip_of(entry.ifa_addr) } == Some(address) {
            // SAFETY: the names in the list are zero-terminated.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
            // A second address may have a label, such as eth0:1, which is not the name of an interface.
            found = name.split(':').next().map(str::to_owned);
            break;
        }
        next = entry.ifa_next;
    }
    // SAFETY: getifaddrs returned the list, and nothing uses it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// The IP address in a socket address, if it has one.
///
/// # Safety
/// `address` is null, or points to as many bytes as a socket address of the family in its first field has.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller guarantees it; the family is the first field of every socket address.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family guarantees this type.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family guarantees this type.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn route_to_address_names_interface() {
        assert_eq!(interface_to("127.0.0.1").unwrap(), "lo");
        assert_eq!(interface_to("::ffff:127.0.0.1").unwrap(), "lo");
        assert_eq!(interface_to("fe80::1%br-lan").unwrap(), "br-lan");
        for wrong in ["", "desk", "1.2.3", "300.1.1.1", "1.2.3.4 5"] {
            assert!(matches!(interface_to(wrong), Err(InterfaceError::NoAddress(_))), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn listener_waits_for_missing_interface() {
        let address = "0.0.0.0:0".parse().unwrap();
        let mut listener = Listener::bind(address, Some("hop-none0")).await.unwrap();
        assert!(listener.socket.is_none());
        let port = listener.local_addr().port();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(("127.0.0.1", port)));
        assert!(accepted.is_ok() && connected.is_ok(), "the loopback is there");
        let any = Listener::bind(address, Some(ANY)).await.unwrap();
        assert!(any.interface.is_none() && any.describe().ends_with("of every interface"));
    }
}

//! A replay attack: an attacker without the key records the bytes of a controller on their way, and sends them again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use hop_tests::{TIMEOUT, Target, fixture};

use super::attacked_router::AttackedRouter;
use crate::plan::Case;

pub const ALL: &[Case] = &cases![replayed_bytes_run_nothing,];

/// Forwards one connection, and returns the bytes that went to the agent.
fn record(listener: &TcpListener, address: &str) -> Vec<u8> {
    let (mut near, _) = listener.accept().unwrap();
    let mut far = TcpStream::connect(address).unwrap();
    let (mut from_far, mut to_near) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    let back = thread::spawn(move || {
        // The one side may be gone before the other.
        let _ = std::io::copy(&mut from_far, &mut to_near);
        let _ = to_near.shutdown(Shutdown::Both);
    });
    let mut recorded = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = near.read(&mut piece) {
        recorded.extend_from_slice(&piece[..count]);
        far.write_all(&piece[..count]).unwrap();
    }
    let _ = far.shutdown(Shutdown::Write);
    back.join().unwrap();
    recorded
}

fn replayed_bytes_run_nothing() {
    let attacked = AttackedRouter::start(Target::Host);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let recorder = listener.local_addr().unwrap().to_string();
    attacked.router.enrol("recorded", &recorder, attacked.router.fingerprint);
    let address = attacked.router.address.clone();
    let recording = thread::spawn(move || record(&listener, &address));
    let program = fixture(Target::Host, "both-outputs");
    let ran = attacked.router.hop().args(["exec", "-r", "recorded"]).arg(program).run();
    assert_eq!(ran.code, 7, "{}", ran.stderr());
    let recorded = recording.join().unwrap();

    let jobs = || attacked.router.log().matches("job ended").count();
    let before = jobs();
    assert!(before >= 2, "the log tells of each job");
    let mut again = TcpStream::connect(&attacked.router.address).unwrap();
    again.set_read_timeout(Some(TIMEOUT)).unwrap();
    // The agent may close the connection before it has got all bytes.
    let _ = again.write_all(&recorded);
    let mut said = Vec::new();
    let _ = again.read_to_end(&mut said);
    // A record of TLS that is no alert and no part of a handshake would be data; sealed ones all look like that, and the agent
    // has sealed no more than its part of the handshake.
    assert!(said.len() < 1024, "{} bytes", said.len());
    attacked.assert_unharmed("replay");
    assert_eq!(jobs(), before + 1, "none but the bystander's");
}

//! The inputs of PID 1: lines of the log, outputs of services, calls by `ubus`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use super::Router;
use crate::pid1::power::End;
use crate::procd::json::{self, Json, json};
use crate::procd::log::{DAEMON_ERROR, DAEMON_INFO};
use crate::procd::supervisor::Output;
use crate::procd::ubus::{self, Status};

/// The limit of concurrent clients, and of readers of the log.
const MAX_CLIENTS: usize = 16;
/// The time limit for a client to read its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) request: Vec<u8>,
}

pub(super) struct Stream {
    pub(super) output: Output,
    pub(super) line: Vec<u8>,
}

impl Router {
    pub(super) fn log(&mut self, priority: u32, text: &str) {
        let line = self.ring.add(priority, text);
        self.send_to_followers(&line);
    }

    pub(super) fn send_to_followers(&mut self, line: &str) {
        self.followers.retain_mut(|follower| follower.write_all(line.as_bytes()).is_ok());
    }

    pub(super) fn read_syslog(&mut self) {
        let mut datagram = [0; 2048];
        while let Some(Ok(read)) = self.syslog.as_ref().map(|socket| socket.recv(&mut datagram)) {
            let line = self.ring.add_datagram(&String::from_utf8_lossy(&datagram[..read]));
            self.send_to_followers(&line);
        }
    }

    pub(super) fn read_streams(&mut self) {
        let mut lines = Vec::new();
        self.streams.retain_mut(|stream| {
            let mut bytes = [0; 1024];
            loop {
                match rustix::io::read(&stream.output.file, &mut bytes) {
                    Ok(0) => return false,
                    Ok(read) => stream.line.extend_from_slice(&bytes[..read]),
                    Err(rustix::io::Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
                while let Some(end) = stream.line.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = stream.line.drain(..=end).collect();
                    lines.push((
                        if stream.output.error { DAEMON_ERROR } else { DAEMON_INFO },
                        format!("{}: {}", stream.output.tag, String::from_utf8_lossy(&line[..end])),
                    ));
                }
                // A longer line is cut, as in the log.
                stream.line.truncate(bytes.len());
            }
        });
        for (priority, line) in lines {
            self.log(priority, &line);
        }
    }

    pub(super) fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.ubus.as_ref().map(UnixListener::accept) {
            let prepared = stream.set_nonblocking(true).and(stream.set_write_timeout(Some(RESPONSE_TIMEOUT)));
            if prepared.is_ok() && self.clients.len() < MAX_CLIENTS {
                self.clients.push(Client { stream, request: Vec::new() });
            }
        }
    }

    pub(super) fn read_clients(&mut self) {
        for mut client in std::mem::take(&mut self.clients) {
            let mut bytes = [0; 4096];
            loop {
                match client.stream.read(&mut bytes) {
                    Ok(0) => {
                        self.answer(client);
                        break;
                    }
                    Ok(read) if client.request.len() + read <= ubus::MESSAGE => {
                        client.request.extend_from_slice(&bytes[..read]);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        self.clients.push(client);
                        break;
                    }
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }

    pub(super) fn answer(&mut self, client: Client) {
        let mut stream = client.stream;
        let request = String::from_utf8_lossy(&client.request).into_owned();
        let mut words = request.trim_end().splitn(3, ' ');
        let (object, method) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let message = words.next().and_then(json::parse);
        let reply = match (object, message) {
            (_, None) => Err(Status::InvalidArgument),
            ("service", Some(message)) => self.supervisor.call(method, &message, Instant::now()),
            ("system", Some(_)) => self.system(method),
            ("log", Some(_)) => {
                let _ = stream.set_nonblocking(false);
                let _ = stream.write_all(format!("0\n{}", self.ring.text()).as_bytes());
                if method == "follow"
                    && self.followers.len() < MAX_CLIENTS
                    && stream.set_nonblocking(true).is_ok()
                {
                    self.followers.push(stream);
                }
                return;
            }
            _ => Err(Status::NotFound),
        };
        let text = match reply {
            Ok(Some(json)) => format!("0\n{}", json),
            Ok(None) => "0\n".to_owned(),
            Err(status) => format!("{}\n", status as u8),
        };
        let _ = stream.set_nonblocking(false);
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.shutdown(Shutdown::Both);
    }

    pub(super) fn system(&mut self, method: &str) -> Result<Option<Json>, Status> {
        match method {
            "board" => Ok(Some(self.board())),
            "reboot" => {
                self.go_down(End::Reboot);
                Ok(None)
            }
            "sysupgrade" => {
                self.upgrade = true;
                self.go_down(End::Reboot);
                Ok(None)
            }
            _ => Err(Status::MethodNotFound),
        }
    }

    pub(super) fn board(&self) -> Json {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let profile = &self.profile;
        json!({
            "kernel": kernel,
            "hostname": profile.hostname,
            "model": profile.model,
            "release": {
                "distribution": "OpenWrt",
                "version": profile.release,
                "target": profile.target,
                "description": format!("OpenWrt {}", profile.release),
            },
        })
    }
}

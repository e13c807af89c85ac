//! A Modbus-TCP server with a table of holding registers, like the maker's on a RUT955.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::console::fail;

/// The number of registers, from 0; all can be read and written.
const REGISTERS: usize = 256;
/// The longest frame: a header of 7 bytes and 253 of function and data (Modbus-TCP, 4.1).
const FRAME: usize = 260;
/// The server drops a client that is silent for this long. It serves one client at a time.
const IDLE: Duration = Duration::from_secs(5);

/// `modbus_server ADDRESS PORT`
pub fn main(arguments: &[String]) -> ExitCode {
    let [address, port] = arguments else { return fail("Usage: modbus_server ADDRESS PORT") };
    let listener = match TcpListener::bind(format!("{address}:{port}")) {
        Ok(listener) => listener,
        Err(error) => return fail(&format!("modbus_server: {address}:{port}: {error}")),
    };
    let mut registers = Registers::new();
    for stream in listener.incoming().flatten() {
        let _ = serve(stream, &mut registers);
    }
    ExitCode::SUCCESS
}

fn serve(mut stream: TcpStream, registers: &mut Registers) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut header = [0; 7];
    loop {
        stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[2..4] != [0, 0] || !(2..=FRAME - 6).contains(&length) {
            return Ok(());
        }
        let mut request = vec![0; length - 1];
        stream.read_exact(&mut request)?;
        let reply = registers.answer(&request);
        let mut frame = header.to_vec();
        frame[4..6].copy_from_slice(&(reply.len() as u16 + 1).to_be_bytes());
        frame.extend(reply);
        stream.write_all(&frame)?;
    }
}

/// Exception codes.
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;

struct Registers([u16; REGISTERS]);

impl Registers {
    /// Plausible values: no two neighbours are equal.
    fn new() -> Self {
        Self(std::array::from_fn(|number| 2300 + (number as u16 * 37) % 211))
    }

    /// The response's function and data to those of a request.
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let function = request.first().copied().unwrap_or(0);
        self.try_answer(request).unwrap_or_else(|exception| vec![function | 0x80, exception])
    }

    fn try_answer(&mut self, request: &[u8]) -> Result<Vec<u8>, u8> {
        let word = |index: usize| -> Result<u16, u8> {
            let bytes = request.get(index..index + 2).ok_or(ILLEGAL_VALUE)?;
            Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        let function = request.first().copied().unwrap_or(0);
        match function {
            3 | 4 => {
                let (first, count) = (word(1)?, word(3)?);
                if !(1..=125).contains(&count) {
                    return Err(ILLEGAL_VALUE);
                }
                let values = self.slice(first, count)?;
                let mut reply = vec![function, count as u8 * 2];
                reply.extend(values.iter().flat_map(|value| value.to_be_bytes()));
                Ok(reply)
            }
            6 => {
                let (number, value) = (word(1)?, word(3)?);
                self.slice(number, 1)?[0] = value;
                Ok(request[..5].to_vec())
            }
            16 => {
                let (first, count) = (word(1)?, word(3)?);
                if !(1..=123).contains(&count) || request.len() != 6 + usize::from(count) * 2 {
                    return Err(ILLEGAL_VALUE);
                }
                for (index, register) in self.slice(first, count)?.iter_mut().enumerate() {
                    *register = word(6 + index * 2)?;
                }
                Ok(request[..5].to_vec())
            }
            _ => Err(ILLEGAL_FUNCTION),
        }
    }

    fn slice(&mut self, first: u16, count: u16) -> Result<&mut [u16], u8> {
        let first = usize::from(first);
        self.0.get_mut(first..first + usize::from(count)).ok_or(ILLEGAL_ADDRESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_registers_can_be_read() {
        let mut registers = Registers::new();
        assert_eq!(registers.answer(&[6, 0, 10, 0x12, 0x34]), [6, 0, 10, 0x12, 0x34]);
        assert_eq!(registers.answer(&[16, 0, 11, 0, 2, 4, 1, 2, 3, 4]), [16, 0, 11, 0, 2]);
        assert_eq!(registers.answer(&[3, 0, 10, 0, 3]), [3, 6, 0x12, 0x34, 1, 2, 3, 4]);
        assert_eq!(registers.answer(&[4, 0, 10, 0, 1]), [4, 2, 0x12, 0x34]);
    }

    #[test]
    fn invalid_requests_are_exceptions() {
        let mut registers = Registers::new();
        for (request, reply) in [
            (&[1, 0, 0, 0, 1][..], [0x81, ILLEGAL_FUNCTION]),
            (&[3, 0, 255, 0, 2], [0x83, ILLEGAL_ADDRESS]),
            (&[3, 0, 0, 0, 126], [0x83, ILLEGAL_VALUE]),
            (&[3, 0], [0x83, ILLEGAL_VALUE]),
            (&[16, 0, 0, 0, 1, 2], [0x90, ILLEGAL_VALUE]),
            (&[6, 1, 0, 0, 1], [0x86, ILLEGAL_ADDRESS]),
        ] {
            assert_eq!(registers.answer(request), reply);
        }
    }
}

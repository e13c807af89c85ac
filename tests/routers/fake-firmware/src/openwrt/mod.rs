//! Programs of OpenWrt and RutOS.

pub mod modbus;
pub mod packages;
pub mod uci;
pub mod upgrade;

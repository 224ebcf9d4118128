//! The program `supernode`: as an operator runs it, and as strangers and full
//! disks meet it.

#![cfg(unix)]

mod control;
mod decree;
mod disk;
mod http;
mod operator;
mod records;
mod running;
mod visitor;

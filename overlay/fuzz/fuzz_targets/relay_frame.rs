//! Whatever comes to a relay's socket is read without a panic, proves nothing
//! without the key, and says what it is in a way that can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "what relays and links need besides")]
#[path = "../../src/fabric/link/frame.rs"]
mod frame;

use frame::{FlowKey, Frame, Kind};

fuzz_target!(|bytes: &[u8]| {
    let Some(frame) = Frame::parse(bytes) else {
        return;
    };
    assert!(!frame.proves(&FlowKey([0x5a; 32])));
    let (flow, side) = (frame.flow, frame.side);
    match frame.kind {
        Kind::Data => {
            let again = [frame::header(flow, side).as_slice(), frame.payload()].concat();
            assert_eq!(again, bytes);
        }
        Kind::Lost => assert_eq!(frame::lost(flow, side).as_slice(), bytes),
        Kind::Bind { count } | Kind::Close { count } | Kind::Bound { count, .. } => {
            assert_eq!(bytes[9..17], count.to_be_bytes());
        }
    }
});

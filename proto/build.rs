//! Compiles the `.proto` files with protox, so that no system `protoc` is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=canopy");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let wire = protox::compile(
        [
            "canopy/wire/v1/session.proto",
            "canopy/wire/v1/record.proto",
            "canopy/wire/v1/election.proto",
            "canopy/wire/v1/core.proto",
            "canopy/wire/v1/index.proto",
        ],
        ["."],
    )?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(wire)?;

    if env::var_os("CARGO_FEATURE_LEAF").is_some() {
        let leaf = protox::compile(["canopy/leaf/v1/leaf.proto"], ["."])?;
        // The descriptor is what gRPC reflection answers from.
        fs::write(out.join("leaf_descriptor.bin"), leaf.encode_to_vec())?;
        tonic_prost_build::configure().compile_fds(leaf)?;
    }
    Ok(())
}

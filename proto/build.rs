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
            "canopy/wire/v1/decree.proto",
            "canopy/wire/v1/core.proto",
            "canopy/wire/v1/inspect.proto",
            "canopy/wire/v1/routing.proto",
            "canopy/wire/v1/link.proto",
            "canopy/wire/v1/content.proto",
            "canopy/wire/v1/index.proto",
        ],
        ["."],
    )?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        // The rare and large must not make every answer large.
        .boxed(".canopy.wire.v1.Response.kind.inspect")
        .boxed(".canopy.wire.v1.Response.kind.relay_opened")
        .boxed(".canopy.wire.v1.Request.kind.link_offer")
        .compile_fds(wire)?;

    for api in ["leaf", "control"] {
        if env::var_os(format!("CARGO_FEATURE_{}", api.to_uppercase())).is_some() {
            let files = protox::compile([format!("canopy/{api}/v1/{api}.proto")], ["."])?;
            // The descriptor is what gRPC reflection answers from.
            let descriptor = out.join(format!("{api}_descriptor.bin"));
            fs::write(descriptor, files.encode_to_vec())?;
            let mut build = tonic_prost_build::configure();
            if api == "control" {
                // Programs print these messages as JSON.
                build = build.type_attribute(".", "#[derive(serde::Serialize)]");
            }
            build.compile_fds(files)?;
        }
    }
    Ok(())
}

//! Shares a folder, or fetches one, as in the README: from as many leaves as have
//! some of it, each piece proved.
//!
//! Run a peer first (`cargo run --release -- run`), then with its address
//! `cargo run --release -p canopy-leaf --example share -- 127.0.0.1:PORT FOLDER`, and
//! elsewhere the same with the hash that it prints.

use canopy_leaf::{Hash, Leaf};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let peer = args.next().ok_or("give a peer's address")?;
    let leaf = Leaf::builder().peer(peer.parse()?).start().await?;
    let what = args.next().ok_or("give a folder, or a hash")?;
    match what.parse::<Hash>() {
        Err(_) => println!("Fetch it by {}", leaf.share(&what).await?.content),
        Ok(hash) => {
            let mut fetch = leaf.fetch(hash, "fetched");
            while let Some(progress) = fetch.next().await {
                println!("{} of {} bytes", progress.bytes, progress.total);
            }
            fetch.await?;
        }
    }
    tokio::signal::ctrl_c().await?; // Others fetch it from here meanwhile.
    leaf.close().await;
    Ok(())
}

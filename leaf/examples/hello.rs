//! The first program of the README: writes a value and finds an item.
//!
//! Run a peer first (`cargo run --release -- run`), then this with its address:
//! `cargo run --release -p canopy-leaf --example hello -- 127.0.0.1:PORT`.

use canopy_leaf::{Item, Leaf, Query};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let peer = std::env::args()
        .nth(1)
        .ok_or("give the address of a peer")?;
    let leaf = Leaf::builder().peer(peer.parse()?).start().await?;

    leaf.put("greeting", "hello").await?;
    leaf.publish(&Item::new("red-panda.txt").text("eats bamboo"))
        .await?;
    for hit in leaf.search(&Query::parse("bamboo")?).await?.hits {
        println!("{} by {}", hit.item.name, hit.publisher);
    }
    leaf.close().await;
    Ok(())
}

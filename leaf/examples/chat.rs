//! The chat of the README: two peers, sealed end to end, with no server of their
//! own. What is typed while the other one is away waits for it.
//!
//! Run a peer first (`cargo run --release -- run`), then this twice with its
//! address: `cargo run --release -p canopy-leaf --example chat -- 127.0.0.1:PORT`.

use canopy_leaf::Leaf;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let peer = std::env::args().nth(1).ok_or("give a peer's address")?;
    let leaf = Leaf::builder().peer(peer.parse()?).start().await?;
    println!("You are {}. Whom do you write to?", leaf.node_id());
    let mut messages = leaf.messages();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            println!("> {}", String::from_utf8_lossy(&message.data));
        }
    });
    let mut lines = std::io::stdin().lines();
    let friend = lines.next().ok_or("nobody")??.trim().parse()?;
    for line in lines {
        leaf.send(friend, line?).await?;
    }
    leaf.close().await;
    Ok(())
}

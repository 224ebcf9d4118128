//! How much a node's index takes in.

/// Limits of one index. What is over one is refused with the limit named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most records of one publisher.
    pub publisher_records: u64,
    /// Most bytes of one publisher's encoded records.
    pub publisher_bytes: u64,
    /// Most records in all.
    pub records: u64,
    /// Most bytes of encoded records in all.
    pub bytes: u64,
    /// Most items under one term; further ones are entered under their other
    /// terms only. 800 KB of postings.
    pub postings_per_term: usize,
    /// Most publishers that provide one content.
    pub providers_per_key: usize,
    /// Most letters that wait for one peer: 8 MiB of the largest.
    pub mailbox_letters: usize,
    /// Most of these from one sender.
    pub mailbox_of_sender: usize,
    /// Bytes of records kept in memory beside the disk.
    pub cache_bytes: usize,
}

impl Limits {
    /// No limit at all.
    pub(super) const NONE: Self = Self {
        publisher_records: u64::MAX,
        publisher_bytes: u64::MAX,
        records: u64::MAX,
        bytes: u64::MAX,
        postings_per_term: usize::MAX,
        providers_per_key: usize::MAX,
        mailbox_letters: usize::MAX,
        mailbox_of_sender: usize::MAX,
        cache_bytes: usize::MAX,
    };
}

impl Default for Limits {
    /// A node with 4 GiB of memory to spare: five million records of 300 bytes,
    /// and no publisher with more than a fiftieth of them.
    fn default() -> Self {
        Self {
            publisher_records: 100_000,
            publisher_bytes: 256 * 1024 * 1024,
            records: 5_000_000,
            bytes: 16 * 1024 * 1024 * 1024,
            postings_per_term: 200_000,
            providers_per_key: 10_000,
            mailbox_letters: 128,
            mailbox_of_sender: 32,
            cache_bytes: 512 * 1024 * 1024,
        }
    }
}

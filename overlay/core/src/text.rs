//! How text becomes search terms, on both sides: publishers cut what they
//! describe with [`terms`], searchers cut what they look for with [`query`].
//!
//! The two must never drift apart: a term is found by equality alone, and no
//! holder looks at the text again. Every term is a fixed point of [`fold`].
//!
//! Words of scripts that are written with spaces are whole terms. Chinese,
//! Japanese, Korean and the other scripts written without spaces are cut into
//! overlapping pairs of characters plus the last character of each run, so
//! that every substring is found: two or more characters by their pairs, one
//! character as the beginning of a pair or as the last of its run.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::record::{MAX_TERM, MAX_TERMS};

/// Bytes of a text that [`terms`] reads; the rest is not searchable.
pub const MAX_TEXT: usize = 64 * 1024;
/// Bytes of a search that [`query`] reads.
pub const MAX_QUERY: usize = 1024;
/// Most pairs that one unspaced run adds to a query; a longer run is sampled
/// evenly, which can only find more.
const MAX_RUN_PAIRS: usize = 8;

/// A search, cut and folded as the index is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Terms that must all match, distinct, in order of appearance.
    pub terms: Vec<String>,
    /// Beginnings of terms that must all match, distinct.
    pub prefixes: Vec<String>,
}

/// The distinct search terms of `text` in order of first appearance, each at
/// most [`MAX_TERM`] bytes. Reads at most [`MAX_TEXT`] bytes.
pub fn terms(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for run in runs(&normal(text, MAX_TEXT)) {
        match run {
            Run::Unspaced { chars, .. } => unspaced_terms(&chars, &mut out),
            Run::Word { text, .. } => word_terms(&text, &mut out),
        }
    }
    distinct(out)
}

/// What an item's record carries: the terms of its name, then those of its
/// text, at most [`MAX_TERMS`] in all.
pub fn item_terms(name: &str, text: &str) -> Vec<String> {
    let mut all = terms(name);
    if all.len() < MAX_TERMS {
        all.extend(terms(text));
        all = distinct(all);
    }
    all.truncate(MAX_TERMS);
    all
}

/// Cuts a search. A word with a `*` right behind it is a beginning; everything
/// else is a term. Reads at most [`MAX_QUERY`] bytes.
pub fn query(text: &str) -> Query {
    let mut out = Query::default();
    for run in runs(&normal(text, MAX_QUERY)) {
        match run {
            Run::Unspaced { chars, .. } => match chars.as_slice() {
                [] => {}
                [one] => out.prefixes.push(one.to_string()),
                _ => out.terms.extend(sampled_pairs(&chars)),
            },
            Run::Word { text, star } => {
                for piece in text.split('_') {
                    let word = cut(fold(piece));
                    match (word.is_empty(), star && text.ends_with(piece)) {
                        (true, _) => {}
                        (_, true) => out.prefixes.push(word),
                        (_, false) => out.terms.push(word),
                    }
                }
            }
        }
    }
    out.terms = distinct(out.terms);
    out.prefixes = distinct(out.prefixes);
    out
}

/// Compatibility forms made one, case folded, Latin and Greek letters without
/// their diacritics.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut out = fold_once(text);
    // Folding one character can make another foldable; three rounds reach the
    // fixed point for all of Unicode, and the bound keeps it a loop that ends.
    for _ in 0..3 {
        let next = fold_once(&out);
        if next == out {
            break;
        }
        out = next;
    }
    out
}

/// Whether `c` belongs to a script that is written without spaces.
pub fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0EFF      // Thai, Lao
        | 0x1000..=0x109F    // Myanmar
        | 0x1100..=0x11FF    // Hangul Jamo
        | 0x1780..=0x17FF    // Khmer
        | 0x3005..=0x3007 | 0x3021..=0x3029 | 0x3031..=0x3035
        | 0x3040..=0x318F    // Kana, Bopomofo, Hangul compatibility Jamo
        | 0x31A0..=0x31BF | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF
        | 0xA960..=0xA97F | 0xAC00..=0xD7FF
        | 0xF900..=0xFAFF
        | 0x1AFF0..=0x1B16F  // Kana supplements
        | 0x20000..=0x3FFFF) // Han extensions
}

/// A stretch of text without separators, before folding.
enum Run {
    /// Letters and digits of spaced scripts; may hold `_`.
    Word {
        text: String,
        /// A `*` stands right behind it.
        star: bool,
    },
    /// Folded characters of unspaced scripts.
    Unspaced { chars: Vec<char> },
}

fn normal(text: &str, limit: usize) -> String {
    text[..boundary(text, limit)].nfkc().collect()
}

fn runs(text: &str) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    let mut open = false;
    let mut before = ' ';
    for c in text.chars() {
        // A mark needs a letter to stand on.
        let mark = open && before != '_' && is_combining_mark(c);
        before = c;
        if c == '*'
            && open
            && let Some(Run::Word { star, .. }) = out.last_mut()
        {
            *star = true;
        }
        if !(c.is_alphanumeric() || mark || (open && c == '_')) {
            open = false;
            continue;
        }
        match (out.last_mut(), open) {
            (Some(Run::Unspaced { chars }), true) if is_unspaced(c) && c.is_alphanumeric() => {
                chars.push(c);
            }
            // A tone, or a mark of another script: a pair that began with it would
            // not be read as a pair again.
            (Some(Run::Unspaced { .. }), true) if mark => {}
            (Some(Run::Word { text, .. }), true) if mark || !is_unspaced(c) => text.push(c),
            _ if c == '_' => open = false,
            _ if is_unspaced(c) => {
                out.push(Run::Unspaced { chars: vec![c] });
                open = true;
            }
            _ => {
                out.push(Run::Word {
                    text: c.to_string(),
                    star: false,
                });
                open = true;
            }
        }
    }
    for run in &mut out {
        if let Run::Unspaced { chars } = run {
            *chars = fold(&chars.iter().collect::<String>()).chars().collect();
        }
    }
    out
}

/// The whole word, then the parts of `camelCase` and `snake_case`.
fn word_terms(text: &str, out: &mut Vec<String>) {
    let parts: Vec<String> = text.split('_').flat_map(humps).collect();
    out.push(cut(fold(&text.replace('_', ""))));
    if text.contains('_') {
        out.extend(text.split('_').map(|piece| cut(fold(piece))));
    }
    if parts.len() > 1 {
        let parts = parts.iter().map(|part| cut(fold(part)));
        // One letter says nothing: the "i" of "iPhone".
        out.extend(parts.filter(|part| part.chars().nth(1).is_some()));
    }
}

/// Cuts before a capital that follows a small letter or digit, and before the
/// last capital of several when a small letter follows it: `HTTPServer`.
fn humps(word: &str) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    let mut out = vec![String::new()];
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).map(|at| chars[at]);
        let after = chars.get(i + 1);
        let edge = c.is_uppercase()
            && before.is_some_and(|b| {
                !b.is_uppercase() || after.is_some_and(|after| after.is_lowercase())
            });
        if edge {
            out.push(String::new());
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}

fn unspaced_terms(chars: &[char], out: &mut Vec<String>) {
    out.extend(chars.windows(2).map(|pair| pair.iter().collect::<String>()));
    out.extend(chars.last().map(char::to_string));
}

fn sampled_pairs(chars: &[char]) -> impl Iterator<Item = String> {
    let step = chars.len().saturating_sub(1).div_ceil(MAX_RUN_PAIRS).max(1);
    let pairs = chars.windows(2).step_by(step);
    pairs.map(|pair| pair.iter().collect())
}

fn fold_once(text: &str) -> String {
    let mut strip = false;
    let mut out = String::with_capacity(text.len());
    for c in text.nfkd() {
        if is_combining_mark(c) {
            if !strip {
                out.push(c);
            }
            continue;
        }
        strip = has_diacritics(c);
        for lower in c.to_lowercase() {
            match lower {
                'ß' => out.push_str("ss"),
                'æ' => out.push_str("ae"),
                'œ' => out.push_str("oe"),
                'þ' => out.push_str("th"),
                'ø' => out.push('o'),
                'ł' => out.push('l'),
                'đ' | 'ð' => out.push('d'),
                'ħ' => out.push('h'),
                'ŧ' => out.push('t'),
                'ı' => out.push('i'),
                'ς' => out.push('σ'),
                mark if is_combining_mark(mark) => {}
                other => out.push(other),
            }
        }
    }
    out.nfkc().collect()
}

/// Latin and Greek: their marks are often left out by those who search.
fn has_diacritics(c: char) -> bool {
    matches!(u32::from(c),
        0x41..=0x5A | 0x61..=0x7A | 0xC0..=0x02AF | 0x0370..=0x03FF
        | 0x1E00..=0x1FFF | 0x2C60..=0x2C7F | 0xA720..=0xA7FF)
}

fn cut(mut term: String) -> String {
    term.truncate(boundary(&term, MAX_TERM));
    term
}

fn boundary(text: &str, limit: usize) -> usize {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

fn distinct(terms: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut terms = terms;
    terms.retain(|term| !term.is_empty() && seen.insert(term.clone()));
    terms
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;

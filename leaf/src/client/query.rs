//! What people search for: words, beginnings of words and filters.

use bytes::Bytes;
use canopy_core::keyspace::{Key, keys};
use canopy_core::record::{PREFIX_CHARS, prefix_of};
use canopy_core::text;
use canopy_proto::wire;
use canopy_proto::wire::filter::Op;

/// Most words and beginnings of words of a query together.
pub const MAX_QUERY_TERMS: usize = 16;
/// Most filters of a query.
pub const MAX_FILTERS: usize = 16;
/// Longest field or value of a filter, bytes.
pub const MAX_FILTER: usize = 1024;
/// Longest text of a query, bytes.
pub const MAX_QUERY: usize = 4096;
/// Hits of a page where no limit is given.
pub const DEFAULT_LIMIT: u32 = 20;
/// Most hits of a page.
pub const MAX_LIMIT: u32 = 100;

/// The operators of filters; of two that fit, the longer comes first.
const OPS: [(&str, Op); 8] = [
    ("!=", Op::NotEqual),
    ("<=", Op::LessOrEqual),
    (">=", Op::GreaterOrEqual),
    ("==", Op::Equal),
    ("=", Op::Equal),
    (":", Op::Equal),
    ("<", Op::Less),
    (">", Op::Greater),
];

/// A search, ready to be asked. All its conditions must match.
///
/// ```
/// use canopy_leaf::Query;
/// let query = Query::parse("red pand* size>1000 type=image/png")?.limit(10);
/// # Ok::<(), canopy_leaf::QueryError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(crate) terms: Vec<String>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) filters: Vec<wire::Filter>,
    pub(crate) limit: u32,
    pub(crate) after: Bytes,
}

/// Why a text cannot be asked as a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No word at all, or filters alone.
    #[error("a search needs at least one word, or the beginning of one with a `*` behind it")]
    Empty,
    /// More words than are allowed.
    #[error("the query has {0} words, the limit is {MAX_QUERY_TERMS}; use fewer")]
    TooManyTerms(usize),
    /// More filters than are allowed.
    #[error("the query has {0} filters, the limit is {MAX_FILTERS}; use fewer")]
    TooManyFilters(usize),
    /// The text is too long.
    #[error("the query is {0} bytes long, the limit is {MAX_QUERY}; shorten it")]
    TooLong(usize),
    /// A field or value is too long.
    #[error("a filter has {0} bytes, the limit is {MAX_FILTER}; shorten it")]
    LongFilter(usize),
    /// Nothing but beginnings that are too short to be looked up.
    #[error(
        "{0:?}* is too short to search by; give {PREFIX_CHARS} characters or a whole word beside it"
    )]
    ShortPrefix(String),
    /// A quote was opened and not closed.
    #[error("a quote is not closed; add the missing `\"`")]
    Quote,
    /// A filter without a value.
    #[error("the filter {0:?} has no value; write e.g. `size>1000` or `type=text/plain`")]
    NoValue(String),
}

impl Query {
    /// Reads a query as people write it: words, `word*`, `"quoted words"`, and
    /// filters `field:value`, `field=value`, `field!=value`, `field<value`,
    /// `<=`, `>`, `>=`, where a value with spaces is quoted. A field is an
    /// attribute, or `size`, `type`, `name`, `publisher`.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY {
            return Err(QueryError::TooLong(text.len()));
        }
        let mut query = Self::of_terms(Vec::new());
        for part in parts(text)? {
            query.add(&part)?;
        }
        query.check()?;
        Ok(query)
    }

    /// Items that have all of these folded words.
    pub(crate) fn of_terms(terms: Vec<String>) -> Self {
        Self {
            terms,
            prefixes: Vec::new(),
            filters: Vec::new(),
            limit: DEFAULT_LIMIT,
            after: Bytes::new(),
        }
    }

    /// Most hits of a page: 1 to [`MAX_LIMIT`]; others are brought within.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, MAX_LIMIT);
        self
    }

    /// Goes on after the page whose cursor this is; see
    /// [`Page::next`](super::Page::next) for the ready query.
    #[must_use]
    pub fn after(mut self, cursor: Bytes) -> Self {
        self.after = cursor;
        self
    }

    /// Where the page before ended; empty for the first.
    pub fn cursor(&self) -> &Bytes {
        &self.after
    }

    /// Adds the condition that `field` equals `value`.
    #[must_use]
    pub fn equal(mut self, field: &str, value: &str) -> Self {
        self.push_filter(field, Op::Equal, value);
        self
    }

    /// The key whose owners answer: of the longest word, which is most often
    /// the rarest; else of the longest beginning.
    pub(crate) fn key(&self) -> Key {
        match self.terms.iter().max_by_key(|term| term.len()) {
            Some(term) => keys::term(term),
            None => keys::term_prefix(self.longest_prefix().unwrap_or("")),
        }
    }

    /// What the longest beginning is looked up by, if any is long enough.
    fn longest_prefix(&self) -> Option<&str> {
        let long = self
            .prefixes
            .iter()
            .filter(|prefix| prefix_of(prefix).is_some());
        long.max_by_key(|prefix| prefix.len())
            .and_then(|prefix| prefix_of(prefix))
    }

    pub(crate) fn to_wire(&self) -> wire::Search {
        wire::Search {
            terms: self.terms.clone(),
            prefixes: self.prefixes.clone(),
            filters: self.filters.clone(),
            limit: self.limit,
            after: self.after.clone(),
            local: false,
        }
    }

    /// Whether an item has all words and beginnings. Filters are the
    /// super-node's work.
    pub(crate) fn matches(&self, item: &wire::Item) -> bool {
        let has = |term: &String| item.terms.contains(term);
        let begins = |prefix: &String| item.terms.iter().any(|term| term.starts_with(prefix));
        self.terms.iter().all(has) && self.prefixes.iter().all(begins)
    }

    fn add(&mut self, part: &Part) -> Result<(), QueryError> {
        if let Part::Plain(text) = part
            && let Some((field, op, value)) = split_filter(text)
        {
            let value = value.replace('"', "");
            if value.is_empty() {
                return Err(QueryError::NoValue(text.clone()));
            }
            self.push_filter(field, op, &value);
            return Ok(());
        }
        let folded = match part {
            // A star in quotes is no beginning.
            Part::Quoted(text) => text::query(&text.replace('*', " ")),
            Part::Plain(text) => text::query(text),
        };
        push_distinct(&mut self.terms, folded.terms);
        push_distinct(&mut self.prefixes, folded.prefixes);
        Ok(())
    }

    fn push_filter(&mut self, field: &str, op: Op, value: &str) {
        self.filters.push(wire::Filter {
            field: field.to_owned(),
            op: op as i32,
            value: value.to_owned(),
        });
    }

    pub(crate) fn check(&self) -> Result<(), QueryError> {
        let count = self.terms.len() + self.prefixes.len();
        if count > MAX_QUERY_TERMS {
            return Err(QueryError::TooManyTerms(count));
        }
        if self.filters.len() > MAX_FILTERS {
            return Err(QueryError::TooManyFilters(self.filters.len()));
        }
        let long = |filter: &wire::Filter| filter.field.len().max(filter.value.len());
        if let Some(length) = self
            .filters
            .iter()
            .map(long)
            .find(|length| *length > MAX_FILTER)
        {
            return Err(QueryError::LongFilter(length));
        }
        match (self.terms.first(), self.prefixes.first()) {
            (None, None) => Err(QueryError::Empty),
            (None, Some(prefix)) if self.longest_prefix().is_none() => {
                Err(QueryError::ShortPrefix(prefix.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// A piece of a query's text.
enum Part {
    /// Up to the next space; a filter's quoted value keeps its quotes.
    Plain(String),
    /// Quoted on its own: words and nothing else.
    Quoted(String),
}

fn parts(text: &str) -> Result<Vec<Part>, QueryError> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (inside, after) = quoted.split_once('"').ok_or(QueryError::Quote)?;
            out.push(Part::Quoted(inside.to_owned()));
            rest = after.trim_start();
            continue;
        }
        let mut inside = false;
        let end = rest.find(|c: char| {
            inside ^= c == '"';
            c.is_whitespace() && !inside
        });
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        if part.matches('"').count() % 2 == 1 {
            return Err(QueryError::Quote);
        }
        out.push(Part::Plain(part.to_owned()));
        rest = after.trim_start();
    }
    Ok(out)
}

/// `field OP value`, where the field looks like a name.
fn split_filter(text: &str) -> Option<(&str, Op, &str)> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '.'))?;
    let (field, rest) = text.split_at(end);
    if field.is_empty() {
        return None;
    }
    let (sign, op) = OPS.iter().find(|(sign, _)| rest.starts_with(sign))?;
    Some((field, *op, &rest[sign.len()..]))
}

fn push_distinct(into: &mut Vec<String>, words: Vec<String>) {
    for word in words {
        if !into.contains(&word) {
            into.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &Query, index: usize) -> (&str, Op, &str) {
        let filter = &query.filters[index];
        (&filter.field, filter.op(), &filter.value)
    }

    #[test]
    fn words_beginnings_quotes_and_filters_are_told_apart() {
        let query =
            Query::parse(r#"Red pan* "size>3 Bamboo*" size>=1000 type=text/plain by:"Ann Lee""#)
                .unwrap();
        assert_eq!(query.terms, ["red", "size", "3", "bamboo"]);
        assert_eq!(query.prefixes, ["pan"]);
        assert_eq!(filter(&query, 0), ("size", Op::GreaterOrEqual, "1000"));
        assert_eq!(filter(&query, 1), ("type", Op::Equal, "text/plain"));
        assert_eq!(filter(&query, 2), ("by", Op::Equal, "Ann Lee"));
    }

    #[test]
    fn a_query_that_nothing_can_answer_is_refused_with_its_reason() {
        assert_eq!(Query::parse("  "), Err(QueryError::Empty));
        assert_eq!(Query::parse("size>1"), Err(QueryError::Empty));
        assert_eq!(Query::parse("\"open"), Err(QueryError::Quote));
        assert_eq!(Query::parse("a by:\"open"), Err(QueryError::Quote));
        assert_eq!(
            Query::parse("ab*"),
            Err(QueryError::ShortPrefix("ab".into()))
        );
        assert_eq!(
            Query::parse("a size>"),
            Err(QueryError::NoValue("size>".into()))
        );
        let words: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        assert_eq!(
            Query::parse(&words.join(" ")),
            Err(QueryError::TooManyTerms(1000))
        );
        let long = "x".repeat(MAX_FILTER + 1);
        let error = QueryError::LongFilter(MAX_FILTER + 1);
        assert_eq!(Query::parse(&format!("a k={long}")), Err(error));
        let long = "x".repeat(MAX_QUERY + 1);
        assert_eq!(Query::parse(&long), Err(QueryError::TooLong(MAX_QUERY + 1)));
    }

    #[test]
    fn a_short_beginning_goes_with_a_word() {
        assert!(Query::parse("red p*").is_ok());
    }

    #[test]
    fn the_longest_word_decides_whom_to_ask() {
        let query = Query::parse("a panda pan*").unwrap();
        assert_eq!(query.key(), keys::term("panda"));
        let query = Query::parse("pandas*").unwrap();
        assert_eq!(query.key(), keys::term_prefix("pan"));
    }
}

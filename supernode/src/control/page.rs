//! Lists in an order that the caller chose, a page at a time.
//!
//! A page's token holds the order and the place of its last entry, so that the
//! next page goes on there whoever has come or gone.

use std::cmp::Ordering;

use tonic::Status;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Number(u64),
    Text(String),
}

pub(super) fn number(value: impl Into<u64>) -> Option<Value> {
    Some(Value::Number(value.into()))
}

/// A rate to order by: busy ones differ by whole numbers, idle ones by less.
pub(super) fn rate(per_s: f64) -> Option<Value> {
    number((per_s.clamp(0.0, 1e15) * 1000.0) as u64)
}

/// What an entry is ordered by; `None`: it is not known.
pub(super) type ValueOf<T> = fn(&T) -> Option<Value>;

/// Where an entry stands: unknown values last, of equals the lower id first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) value: Option<Value>,
    pub(super) id: String,
}

impl Place {
    fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let values = match (&self.value, &other.value) {
            (Some(a), Some(b)) if descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        values.then_with(|| self.id.cmp(&other.id))
    }
}

/// The order of a list.
pub(super) struct Order<T> {
    name: &'static str,
    value: ValueOf<T>,
    /// Names an entry; ids are ordered as text.
    id: fn(&T) -> String,
    descending: bool,
}

impl<T> Order<T> {
    /// The one of `orders` that is asked for; the first where none is.
    pub(super) fn of(
        orders: &[(&'static str, ValueOf<T>)],
        id: fn(&T) -> String,
        order_by: &str,
        descending: bool,
    ) -> Result<Self, Status> {
        let wanted = |name: &str| name == order_by || order_by.is_empty();
        let known = orders.iter().find(|(name, _)| wanted(name));
        let (name, value) = known.copied().ok_or_else(|| {
            let names: Vec<&str> = orders.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            Status::invalid_argument(format!("order_by: {order_by:?} is none of {names}"))
        })?;
        Ok(Self {
            name,
            value,
            id,
            descending,
        })
    }

    fn place(&self, entry: &T) -> Place {
        Place {
            value: (self.value)(entry),
            id: (self.id)(entry),
        }
    }

    /// `order/direction/id/value`.
    pub(super) fn token(&self, place: &Place) -> String {
        let value = match &place.value {
            None => "-".to_owned(),
            Some(Value::Number(number)) => format!("n{number}"),
            Some(Value::Text(text)) => format!("t{text}"),
        };
        format!("{}/{}/{}/{value}", self.name, self.direction(), place.id)
    }

    fn direction(&self) -> &'static str {
        match self.descending {
            true => "down",
            false => "up",
        }
    }

    fn after(&self, token: &str) -> Result<Option<Place>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let place = || {
            let mut parts = token.splitn(4, '/');
            let same = parts.next() == Some(self.name) && parts.next() == Some(self.direction());
            let id = parts.next().filter(|id| same && !id.is_empty())?.to_owned();
            let value = match parts.next()?.split_at_checked(1)? {
                ("-", "") => None,
                ("n", number) => Some(Value::Number(number.parse().ok()?)),
                ("t", text) => Some(Value::Text(text.to_owned())),
                _ => return None,
            };
            Some(Place { value, id })
        };
        place().map(Some).ok_or_else(|| {
            Status::invalid_argument(
                "page_token: it is of no list in this order; begin again without one",
            )
        })
    }
}

/// How many entries a page has at most; `usual` where none are asked for.
pub(super) fn size(asked: u32, usual: u32, most: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(usual as usize),
        size if size <= most => Ok(size as usize),
        size => Err(Status::invalid_argument(format!(
            "page_size: {size} is over {most}; ask for several pages"
        ))),
    }
}

/// A page that was asked for.
pub(super) struct Page<T> {
    order: Order<T>,
    after: Option<Place>,
    size: usize,
}

/// A page that was cut.
pub(super) struct Cut<'a, T> {
    pub(super) entries: Vec<&'a T>,
    /// Empty: that was the last page.
    pub(super) next: String,
    /// Entries of all pages.
    pub(super) total: u32,
}

impl<T> Page<T> {
    pub(super) fn of(order: Order<T>, token: &str, size: usize) -> Result<Self, Status> {
        let after = order.after(token)?;
        Ok(Self { order, after, size })
    }

    pub(super) fn cut<'a>(&self, entries: impl Iterator<Item = &'a T>) -> Cut<'a, T> {
        let placed = entries.map(|entry| (self.order.place(entry), entry));
        let mut all: Vec<(Place, &T)> = placed.collect();
        let total = all.len() as u32;
        let compare = |a: &Place, b: &Place| a.compare(b, self.order.descending);
        if let Some(after) = &self.after {
            all.retain(|(place, _)| compare(place, after).is_gt());
        }
        all.sort_by(|(a, _), (b, _)| compare(a, b));
        let more = all.len() > self.size;
        all.truncate(self.size);
        let last = all.last().filter(|_| more);
        Cut {
            next: last.map_or_else(String::new, |(place, _)| self.order.token(place)),
            entries: all.into_iter().map(|(_, entry)| entry).collect(),
            total,
        }
    }
}

//! Conditions on what an item says of itself.

use std::cmp::Ordering;

use canopy_proto::wire;
use canopy_proto::wire::filter::Op;

use super::docs::Fields;

/// Most filters of a query.
pub(super) const MAX_FILTERS: usize = 16;
/// Longest field name or value of a filter, bytes.
pub(super) const MAX_FILTER: usize = 1024;

/// A filter that has been checked.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    field: &'a str,
    op: Op,
    value: &'a str,
    number: Option<f64>,
}

impl<'a> Filter<'a> {
    /// Checks a filter; `None` if its operator is unknown or it is too long.
    pub(super) fn new(filter: &'a wire::Filter) -> Option<Self> {
        let op = filter.op();
        if op == Op::Unspecified || filter.field.len().max(filter.value.len()) > MAX_FILTER {
            return None;
        }
        Some(Self {
            field: &filter.field,
            op,
            value: &filter.value,
            number: number(&filter.value),
        })
    }

    /// Whether an item with these fields passes. An item without the field
    /// passes "not equal" only.
    pub(super) fn passes(&self, fields: &Fields) -> bool {
        let order = match self.field {
            "size" => Some(self.compare_size(fields.size)),
            "type" => Some(self.compare(&fields.media_type)),
            "name" => Some(self.compare(&fields.name)),
            "publisher" => Some(self.compare(&fields.publisher.to_string())),
            name => {
                let find = fields
                    .attributes
                    .binary_search_by(|(key, _)| (**key).cmp(name));
                find.ok().map(|at| self.compare(&fields.attributes[at].1))
            }
        };
        match (self.op, order) {
            (Op::NotEqual, order) => order != Some(Ordering::Equal),
            (_, None) | (Op::Unspecified, _) => false,
            (Op::Equal, Some(order)) => order.is_eq(),
            (Op::Less, Some(order)) => order.is_lt(),
            (Op::LessOrEqual, Some(order)) => order.is_le(),
            (Op::Greater, Some(order)) => order.is_gt(),
            (Op::GreaterOrEqual, Some(order)) => order.is_ge(),
        }
    }

    fn compare_size(&self, size: u64) -> Ordering {
        match self.value.parse::<u64>() {
            Ok(value) => size.cmp(&value),
            Err(_) => self.compare(&size.to_string()),
        }
    }

    /// As numbers where both are, else as text.
    fn compare(&self, found: &str) -> Ordering {
        match (number(found), self.number) {
            (Some(found), Some(value)) => found.total_cmp(&value),
            _ => found.cmp(self.value),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())?;
    // -0 and 0 are one number.
    Some(number + 0.0)
}

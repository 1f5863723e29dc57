//! Pages of lists that are in memory: `limit`, `cursor` and `next`.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::warnings::{changed_limit, with_warnings};

/// Rows of a page without `limit`.
pub(crate) const DEFAULT_PAGE_ROWS: u32 = 100;
/// Maximum of `limit`.
pub(crate) const MAX_PAGE_ROWS: u32 = 1000;

/// Which page of a list is asked for.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParameters {
    /// `next` of the previous page.
    pub(crate) cursor: Option<String>,
    /// Maximum number of entries; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u32>,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    /// Cursor of the next page; `None` on the last page.
    pub(crate) next: Option<String>,
    pub(crate) warnings: Vec<String>,
}

impl PageParameters {
    /// Returns the number of rows of the page, and the warning if that is not what was asked for.
    pub(crate) fn rows(&self) -> (u32, Option<String>) {
        let asked = self.limit.unwrap_or(DEFAULT_PAGE_ROWS);
        let used = asked.clamp(1, MAX_PAGE_ROWS);
        (used, changed_limit(asked, used))
    }

    /// Returns the page of a list. `key` gives each row a text by which the list is ordered: the cursor is the key of
    /// the last row of a page, so that rows that come and go between two requests move no others; a cursor that no row
    /// has is a position like any other.
    pub(crate) fn of<T>(&self, mut all: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let (limit, warning) = self.rows();
        all.sort_by_cached_key(&key);
        if let Some(cursor) = &self.cursor {
            all.retain(|row| key(row) > *cursor);
        }
        let is_last = all.len() <= limit as usize;
        all.truncate(limit as usize);
        let next = all.last().filter(|_| !is_last).map(&key);
        Page { rows: all, next, warnings: warning.into_iter().collect() }
    }
}

impl<T> Page<T> {
    /// Returns the response with a body of the rows and the cursor.
    pub(crate) fn response<B: Serialize>(self, body: impl FnOnce(Vec<T>, Option<String>) -> B) -> Response {
        with_warnings(Json(body(self.rows, self.next)), self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row is on exactly one page, also if rows come and go between the requests.
    #[test]
    fn pages_have_each_row_once() {
        let key = |row: &u32| format!("{row:04}");
        let mut rows: Vec<u32> = (0..250).rev().collect();
        let mut page = PageParameters { cursor: None, limit: Some(100) };
        let mut seen = Vec::new();
        loop {
            let found = page.of(rows.clone(), key);
            seen.extend(found.rows);
            rows.retain(|row| row % 7 != 0);
            let Some(next) = found.next else { break };
            page.cursor = Some(next);
        }
        let expected: Vec<u32> = (0..250).filter(|row| *row < 100 || row % 7 != 0).collect();
        assert_eq!(seen, expected);
        let all = PageParameters { cursor: None, limit: Some(5000) }.of(vec![1, 2], key);
        assert_eq!((all.rows.len(), all.next, all.warnings.len()), (2, None, 1));
        assert!(PageParameters { cursor: Some("x".into()), limit: None }.of(vec![1], key).rows.is_empty());
    }
}

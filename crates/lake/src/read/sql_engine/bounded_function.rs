//! Scalar functions with a bound on what they return.
//!
//! A batch is split so that the parts' results are small even in the worst case, the parts' sizes are added up, and the
//! function fails once the sum is over [`MAX_RESULT_BYTES`]. So `replace(message, 'a', 'b')` runs on batches of any
//! size, although its worst case is far larger than its result, and `repeat('x', 2000000000)` fails before memory is
//! allocated.

use std::fmt;
use std::sync::Arc;

use deltalake_core::arrow::array::{Array, ArrayRef, AsArray, new_empty_array};
use deltalake_core::arrow::compute::concat;
use deltalake_core::arrow::datatypes::{DataType, FieldRef, Int64Type};
use deltalake_core::datafusion::common::Result;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Maximum size of what a function returns for one batch of rows, in bytes.
const MAX_RESULT_BYTES: u64 = 32 << 20;
/// Maximum size of what a function makes from constants, in bytes: a constant is copied for each row of a batch.
const MAX_CONSTANT_BYTES: u64 = 16 << 10;
/// Bytes that a list needs for each of its elements besides the element's own, at most.
const ELEMENT_BYTES: u64 = 24;

/// How large a result can be, given the sizes of the arguments: bytes of texts and lists, values of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// All arguments after each other.
    Sum,
    /// The arguments from the second on, with the first between them.
    Separated,
    /// Twice the argument.
    Doubled,
    /// The first argument as often as the second says.
    Repeated,
    /// As many characters as the second argument says.
    Padded,
    /// In the first argument, each occurrence of the second is replaced by the third.
    Replaced,
    /// In the first argument, each match of the second is replaced by the third, which can contain the match.
    PatternReplaced,
    /// Each bracket of the second argument can return the first.
    Captured,
    /// A list of at most as many elements as the first argument has bytes.
    Split,
    /// The elements of the first argument as text, with the second between them or the third for nulls.
    Joined,
}

impl Growth {
    /// Returns the maximum size of a result in bytes.
    fn bound(self, sizes: &[u64]) -> u64 {
        let size = |index: usize| sizes.get(index).copied().unwrap_or_default();
        let (first, second, third) = (size(0), size(1), size(2));
        match self {
            Self::Sum => sizes.iter().fold(0, |sum, size| sum.saturating_add(*size)),
            Self::Separated => {
                let texts = sizes.iter().skip(1).fold(0_u64, |sum, size| sum.saturating_add(*size));
                first.saturating_mul(sizes.len() as u64).saturating_add(texts)
            }
            Self::Doubled => first.saturating_mul(2),
            Self::Repeated => first.saturating_mul(second),
            // A character has up to four bytes.
            Self::Padded => second.saturating_mul(4),
            Self::Replaced => (first / second.max(1) + 1).saturating_mul(third).saturating_add(first),
            Self::PatternReplaced => (first + 1).saturating_mul(third.saturating_mul(2) + 1),
            Self::Captured => first.saturating_add(ELEMENT_BYTES).saturating_mul(second + 1),
            Self::Split => (first + 1).saturating_mul(ELEMENT_BYTES),
            Self::Joined => first.saturating_mul(second.saturating_add(third).saturating_add(ELEMENT_BYTES)),
        }
    }
}

/// A function returned, or would return, more than allowed.
pub(super) struct ResultTooLarge {
    function: String,
    is_constant: bool,
}

impl fmt::Display for ResultTooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, source) = match self.is_constant {
            true => (format!("{} KiB", MAX_CONSTANT_BYTES >> 10), "constants"),
            false => (format!("{} MiB", MAX_RESULT_BYTES >> 20), "one batch of rows"),
        };
        write!(
            formatter,
            "{} makes more than {size} of text or lists from {source}; use shorter texts or fewer repetitions, or shorten \
             it with left()",
            self.function
        )
    }
}

/// The same as for people: DataFusion puts it into its messages about filters that run while a file is read.
impl fmt::Debug for ResultTooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for ResultTooLarge {}

impl ResultTooLarge {
    /// Returns what an error comes from, if it is this.
    pub(super) fn cause_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

fn too_large(function: &str, is_constant: bool) -> DataFusionError {
    DataFusionError::External(Box::new(ResultTooLarge { function: function.to_owned(), is_constant }))
}

/// Bounds the result of a function.
pub(super) fn bounded(function: Arc<ScalarUDF>, growth: Growth) -> ScalarUDF {
    ScalarUDF::new_from_impl(BoundedFunction { function, growth })
}

/// A function of DataFusion with a bound. `simplify` is not passed on: it may replace a call by one without the bound.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundedFunction {
    function: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for BoundedFunction {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = call.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { call.number_rows };
        let sizes: Vec<Sizes> = call.args.iter().map(|argument| Sizes::of(argument, rows)).collect::<Result<_>>()?;
        let parts = self.parts(&sizes, rows, is_constant)?;
        if parts.len() <= 1 {
            let result = self.function.invoke_with_args(call)?;
            return match &result {
                ColumnarValue::Scalar(value) if value.size() as u64 > MAX_CONSTANT_BYTES => {
                    Err(too_large(self.name(), true))
                }
                _ => Ok(result),
            };
        }
        let (mut results, mut bytes) = (Vec::<ArrayRef>::new(), 0_u64);
        for (start, length) in parts {
            let slice = |argument: &ColumnarValue| match argument {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, length)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let part = ScalarFunctionArgs {
                args: call.args.iter().map(slice).collect(),
                arg_fields: call.arg_fields.clone(),
                number_rows: length,
                return_field: Arc::clone(&call.return_field),
                config_options: Arc::clone(&call.config_options),
            };
            let result = self.function.invoke_with_args(part)?.into_array(length)?;
            bytes = bytes.saturating_add(result.get_array_memory_size() as u64);
            if bytes > MAX_RESULT_BYTES {
                return Err(too_large(self.name(), false));
            }
            results.push(result);
        }
        let results: Vec<&dyn Array> = results.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&results)?))
    }
}

impl BoundedFunction {
    /// Splits rows into parts, as start and length, whose results are within the limit in the worst case.
    fn parts(&self, sizes: &[Sizes], rows: usize, is_constant: bool) -> Result<Vec<(usize, usize)>> {
        let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0_u64);
        let mut row_sizes = vec![0; sizes.len()];
        for row in 0..rows {
            for (size, all) in row_sizes.iter_mut().zip(sizes) {
                *size = all.at(row);
            }
            let bound = self.growth.bound(&row_sizes);
            if bound > MAX_RESULT_BYTES {
                return Err(too_large(self.name(), is_constant));
            }
            if bytes + bound > MAX_RESULT_BYTES {
                parts.push((start, row - start));
                (start, bytes) = (row, 0);
            }
            bytes += bound;
        }
        parts.push((start, rows - start));
        Ok(parts)
    }
}

/// Sizes of an argument: bytes, or the values of a whole number.
enum Sizes {
    Constant(u64),
    Rows(Vec<u64>),
}

impl Sizes {
    fn of(argument: &ColumnarValue, rows: usize) -> Result<Self> {
        match argument {
            ColumnarValue::Scalar(value) => Ok(Self::Constant(match value.to_array()? {
                array if array.len() == 1 => row_sizes(&array, 1)?.first().copied().unwrap_or_default(),
                _ => 0,
            })),
            ColumnarValue::Array(array) => Ok(Self::Rows(row_sizes(array, rows)?)),
        }
    }

    fn at(&self, row: usize) -> u64 {
        match self {
            Self::Constant(size) => *size,
            Self::Rows(sizes) => sizes.get(row).copied().unwrap_or_default(),
        }
    }
}

/// Returns the size of each row.
fn row_sizes(array: &ArrayRef, rows: usize) -> Result<Vec<u64>> {
    let size = |length: usize| length as u64;
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(|text| size(text.map_or(0, str::len))).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(|text| size(text.map_or(0, str::len))).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(|text| size(text.map_or(0, str::len))).collect(),
        DataType::Binary => array.as_binary::<i32>().iter().map(|bytes| size(bytes.map_or(0, <[u8]>::len))).collect(),
        DataType::LargeBinary => {
            array.as_binary::<i64>().iter().map(|bytes| size(bytes.map_or(0, <[u8]>::len))).collect()
        }
        DataType::BinaryView => array.as_binary_view().iter().map(|bytes| size(bytes.map_or(0, <[u8]>::len))).collect(),
        number if number.is_integer() => {
            let numbers = deltalake_core::arrow::compute::cast(array, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            numbers
                .iter()
                .map(|number| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
                .collect()
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let element_bytes = bytes_per_row(list.values());
            let count = |row: usize| size(list.value_length(row).unsigned_abs() as usize);
            (0..list.len()).map(|row| count(row).saturating_mul(element_bytes)).collect()
        }
        _ => vec![bytes_per_row(array); rows],
    })
}

/// Returns the average size of a row, rounded up.
fn bytes_per_row(array: &ArrayRef) -> u64 {
    if array.is_empty() {
        return 0;
    }
    let bytes = match array.data_type() {
        // The memory of views includes buffers that they share with other rows.
        DataType::Utf8View => array.as_string_view().iter().map(|text| 16 + text.map_or(0, str::len)).sum(),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    };
    (bytes as u64).div_ceil(array.len() as u64)
}

/// Wraps an expression so that it fails if it makes more than [`MAX_RESULT_BYTES`] from a batch.
pub(super) fn bound_size(expression: Expr) -> Expr {
    ScalarUDF::new_from_impl(BoundSize { signature: Signature::any(1, Volatility::Immutable) }).call(vec![expression])
}

/// Returns its argument, or fails if it is too large.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundSize {
    signature: Signature,
}

impl ScalarUDFImpl for BoundSize {
    fn name(&self) -> &str {
        "bound_size"
    }

    /// Columns have the name of the argument.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(arguments.first().map(|argument| argument.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let first = arguments.arg_fields.first().map(Arc::clone);
        first.ok_or_else(|| DataFusionError::Internal("an argument is missing".into()))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let empty = || ColumnarValue::Array(new_empty_array(&DataType::Null));
        let argument = call.args.into_iter().next().unwrap_or_else(empty);
        let (bytes, is_constant) = match &argument {
            ColumnarValue::Scalar(value) => (value.size() as u64, true),
            ColumnarValue::Array(array) => (bytes_per_row(array).saturating_mul(array.len() as u64), false),
        };
        if bytes > if is_constant { MAX_CONSTANT_BYTES } else { MAX_RESULT_BYTES } / 2 {
            return Err(too_large("||", is_constant));
        }
        Ok(argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_not_smaller_than_results() {
        let text = |text: &str| text.len() as u64;
        for (growth, sizes, result) in [
            (Growth::Repeated, vec![2, 3], text("ababab")),
            (Growth::Padded, vec![1, 5], text("aöööö")),
            (Growth::Replaced, vec![3, 1, 4], text("bbbbbbbbbbbb")),
            (Growth::Replaced, vec![3, 0, 2], text("xxaxxbxxcxx")),
            (Growth::PatternReplaced, vec![3, 2, 4], text("aaaabbbbcccc")),
            (Growth::Separated, vec![2, 1, 1, 1], text("a, b, c")),
            (Growth::Doubled, vec![3], text("616263")),
            (Growth::Sum, vec![1, 2, 3], text("abbccc")),
        ] {
            assert!(growth.bound(&sizes) >= result, "{growth:?} {sizes:?}");
        }
        assert_eq!(Growth::Repeated.bound(&[u64::MAX, 2]), u64::MAX);
    }
}

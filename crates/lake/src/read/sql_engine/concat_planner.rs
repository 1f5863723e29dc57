//! Bounds both sides of `||`, which is an operator and not a function that could be left out or wrapped.

use deltalake_core::datafusion::common::{DFSchema, Result};
use deltalake_core::datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use deltalake_core::datafusion::sql::sqlparser::ast::BinaryOperator;

use super::bounded_function::bound_size;

/// Wraps both operands of `||`; the planners after this one plan the operation.
#[derive(Debug)]
pub(super) struct ConcatPlanner;

impl ExprPlanner for ConcatPlanner {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op == BinaryOperator::StringConcat {
            expr.left = bound_size(expr.left);
            expr.right = bound_size(expr.right);
        }
        Ok(PlannerResult::Original(expr))
    }
}

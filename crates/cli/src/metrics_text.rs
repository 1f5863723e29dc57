//! Reads metrics in Prometheus' text format, as `/metrics` has them.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricSample {
    /// Name of the metric.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its value.
    pub(crate) value: f64,
}

/// Returns the samples; comments and lines of another form are skipped.
pub(crate) fn parse_metrics(text: &str) -> Vec<MetricSample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<MetricSample> {
    let (name, labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, value) = parse_labels(rest)?;
            (name, labels, value)
        }
        None => {
            let (name, value) = line.split_once(' ')?;
            (name, BTreeMap::new(), value)
        }
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(MetricSample { name: name.to_owned(), labels, value })
}

/// Reads labels up to the closing brace. Returns them, and what follows.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (mut value, mut characters) = (String::new(), after.chars());
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => match characters.next()? {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value);
        rest = characters.as_str();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"}\\n\"} 3\nb 0.5\nc{} 1e3 1700000000\nbroken{x=\"\nnoise\n";
        let found = parse_metrics(text);
        let names: Vec<_> = found.iter().map(|sample| (sample.name.as_str(), sample.value)).collect();
        assert_eq!(names, [("a", 3.0), ("b", 0.5), ("c", 1000.0)]);
        assert_eq!(found[0].labels["y"], "q\"}\n");
    }
}

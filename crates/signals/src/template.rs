//! Templates of names: text with labels in braces.

use std::borrow::Cow;

use crate::computed::Computed;
use crate::context::Context;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// A label, in its spelling with dots and with underscores.
    Label(Box<str>, Box<str>, Filter),
    Computed(Computed),
}

/// The part of a label's value that is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// All of it.
    Whole,
    /// `app/NAME/ID` and `arn:…:targetgroup/NAME/ID` of AWS.
    AwsName,
    /// `NAME@PROVIDER` of Traefik.
    BeforeAt,
    /// A path as systemd names it: `/var/lib/mysql` is `var-lib-mysql`, so that a name with it stays one word.
    Path,
}

impl Filter {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "aws-name" => Some(Self::AwsName),
            "before-at" => Some(Self::BeforeAt),
            "path" => Some(Self::Path),
            _ => None,
        }
    }

    fn apply(self, value: &str) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Whole => value,
            Self::BeforeAt => value.split('@').next().unwrap_or(value),
            Self::Path => match value.trim_matches('/') {
                "" => "root",
                path => return Cow::Owned(path.replace('/', "-")),
            },
            Self::AwsName => {
                let mut from_end = value.rsplit('/');
                let (last, name, kind) = (from_end.next(), from_end.next(), from_end.next());
                if kind.is_some() { name.unwrap_or(value) } else { last.unwrap_or(value) }
            }
        })
    }
}

impl Template {
    /// Parses a template; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            let (name, tail) =
                after.split_once('}').ok_or_else(|| format!("template {text:?} has no closing brace"))?;
            pieces.push(match name.strip_prefix('@') {
                Some(word) => Piece::Computed(Computed::parse(word).ok_or_else(|| {
                    format!(
                        "template {text:?} names {name:?}; known are @own, @workload, @pod, @node, @host, @instance, \
                             @watched, @job, @target, @address and @prefix"
                    )
                })?),
                None => {
                    let (name, filter) = match name.split_once('|') {
                        Some((name, word)) => {
                            let unknown =
                                || format!("template {text:?} has {word:?}; known are aws-name, before-at and path");
                            (name, Filter::parse(word).ok_or_else(unknown)?)
                        }
                        None => (name, Filter::Whole),
                    };
                    Piece::Label(name.into(), name.replace('.', "_").into(), filter)
                }
            });
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        if pieces.is_empty() { Err("a template is empty".into()) } else { Ok(Self(pieces)) }
    }

    /// Returns the text for a series; `None` if one of the labels is absent.
    pub(crate) fn fill<'a>(&'a self, context: &Context<'a>) -> Option<Cow<'a, str>> {
        if let [piece] = self.0.as_slice() {
            return piece.value(context);
        }
        let mut text = String::new();
        for piece in &self.0 {
            text.push_str(&piece.value(context)?);
        }
        Some(Cow::Owned(text))
    }

    /// Whether the name is what an exporter watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.0 == [Piece::Computed(Computed::Watched)]
    }
}

impl Piece {
    fn value<'a>(&'a self, context: &Context<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Label(dotted, plain, filter) => context.label(dotted, plain).map(|value| filter.apply(value)),
            Self::Computed(computed) => context.computed(*computed).map(Cow::Borrowed),
        }
    }
}

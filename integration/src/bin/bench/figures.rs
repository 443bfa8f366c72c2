//! Rows of the table: one column per server, medians with their spread.

use crate::options::Contender;

/// Samples of one figure, by server.
pub struct Samples(Vec<Vec<f64>>);

impl Samples {
    pub fn new(contenders: &[Contender]) -> Samples {
        Samples(vec![Vec::new(); contenders.len()])
    }

    /// Adds what one round measured of the server in this column.
    pub fn add(&mut self, column: usize, sample: f64) {
        self.0[column].push(sample);
    }

    /// The median of a column, `None` where nothing was measured.
    pub fn median(&self, column: usize) -> Option<f64> {
        let sorted = self.sorted(column);
        sorted.get(sorted.len() / 2).copied()
    }

    /// Prints the row: the median, in brackets the lowest and the highest. A server without samples has a dash.
    pub fn print(&self, title: &str, digits: usize, unit: &str) {
        let cells = (0..self.0.len()).map(|column| {
            let sorted = self.sorted(column);
            match (self.median(column), &sorted[..]) {
                (Some(median), [lowest, .., highest]) => {
                    format!("{median:.digits$}{unit} ({lowest:.digits$}–{highest:.digits$})")
                }
                (Some(median), _) => format!("{median:.digits$}{unit}"),
                (None, _) => String::from("–"),
            }
        });
        print_row(title, cells);
    }

    fn sorted(&self, column: usize) -> Vec<f64> {
        let mut samples = self.0[column].clone();
        samples.sort_unstable_by(f64::total_cmp);
        samples
    }
}

/// Prints the head of the table.
pub fn print_head(contenders: &[Contender]) {
    let names = contenders.iter().map(|contender| contender.name.clone());
    print_row("per operation", names);
    println!("|---|{}", "---|".repeat(contenders.len()));
}

/// Prints a row of what is measured once per server.
pub fn measure(contenders: &[Contender], title: &str, measure: impl Fn(&Contender) -> String) {
    print_row(title, contenders.iter().map(measure));
}

fn print_row(title: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    println!("| {title} | {} |", cells.join(" | "));
}

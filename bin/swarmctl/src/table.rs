//! Tables: a header, a line of dashes, aligned columns (control-plane spec 29).

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use swarm_types::printable;

/// Renders rows under a header. Every row has as many cells as the header.
pub(crate) fn render(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.iter().copied());
    table.add_row(header.iter().map(|title| "-".repeat(title.len())));
    let shown = |cell: &String| printable::line(cell).into_owned();
    table.add_rows(rows.iter().map(|row| row.iter().map(shown)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    lines(table.lines())
}

/// Renders `name: value` lines with the values aligned.
pub(crate) fn fields(fields: &[(String, String)]) -> String {
    let width = fields
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let line = |(name, value): &(String, String)| {
        let gap = " ".repeat(width - name.chars().count());
        format!("{name}{gap}  {}", printable::line(value))
    };
    lines(fields.iter().map(line))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_under_a_dashed_header() {
        let rows = vec![row(&["1", "web", "2/3"]), row(&["22222", "worker-ü", ""])];
        assert_eq!(
            render(&["ID", "Name", "Replicas"], rows),
            "ID     Name      Replicas\n\
             --     ----      --------\n\
             1      web       2/3\n\
             22222  worker-ü\n"
        );
    }

    #[test]
    fn a_table_without_rows_still_has_its_header() {
        assert_eq!(render(&["ID"], Vec::new()), "ID\n--\n");
    }

    #[test]
    fn long_cells_are_not_wrapped() {
        let long = "x".repeat(500);
        let text = render(&["A", "B"], vec![row(&[&long, "end"])]);
        assert!(text.ends_with(&format!("{long}  end\n")));
    }

    #[test]
    fn what_others_chose_stays_in_its_cell() {
        let name = "\u{1b}[2Jx\nroot  READY\u{202e}";
        let shown = "\\u{1b}[2Jx\\nroot  READY\\u{202e}";
        let text = render(&["A", "B"], vec![row(&[name, "end"])]);
        assert_eq!(text.lines().nth(2).unwrap(), format!("{shown}  end"));
        let pairs = [("Name".to_owned(), name.to_owned())];
        assert_eq!(fields(&pairs), format!("Name  {shown}\n"));
    }

    #[test]
    fn fields_are_aligned() {
        let pairs = [("ID", "1"), ("Name", "web")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(&pairs), "ID    1\nName  web\n");
        assert_eq!(fields(&[]), "");
    }
}

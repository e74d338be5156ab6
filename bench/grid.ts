import Table from 'cli-table3';

/** Rows for a terminal; all columns but the first ones are numbers. */
export function terminalGrid(
  head: readonly string[],
  rows: readonly string[][],
  leftColumns = 1,
): string {
  const grid = new Table({
    head: [...head],
    colAligns: head.map((_, column) => (column < leftColumns ? 'left' : 'right')),
    style: { head: [], border: [] },
  });
  grid.push(...rows);
  return grid.toString();
}

/** The same rows in Markdown; all columns but the first are numbers. */
export function markdownGrid(head: readonly string[], rows: readonly string[][]): string {
  const aligns = head.map((_, column) => (column === 0 ? '---' : '---:'));
  return [head, aligns, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

import { stripVTControlCharacters } from 'node:util';

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'left' | 'right';
}

/** Rows under titles, each column as wide as its widest cell. No spaces at the ends of lines. */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = [
    columns.map((column) => column.title),
    ...rows.map((row) => columns.map((c) => oneLine(c.value(row)))),
  ];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => widthOf(line[index] ?? ''))));
  return cells
    .map((line) =>
      line
        .map((cell, index) => {
          const padding = ' '.repeat((widths[index] ?? 0) - widthOf(cell));
          return columns[index]?.align === 'right' ? padding + cell : cell + padding;
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Titles and texts below each other, the texts aligned. */
export function formatFacts(facts: readonly (readonly [title: string, text: string])[]): string {
  const width = Math.max(...facts.map(([title]) => widthOf(title)));
  return facts
    .map(([title, text]) => `  ${title}${' '.repeat(width - widthOf(title))}  ${oneLine(text)}`.trimEnd())
    .join('\n');
}

function widthOf(text: string): number {
  return [...stripVTControlCharacters(text)].length;
}

/** Text from a guest must not move the cursor or break the table. Colours of ours stay. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this removes
  return text.replaceAll(/[\u0000-\u001a\u001c-\u001f\u007f-\u009f]|\u001b(?!\[\d+m)/g, '·');
}

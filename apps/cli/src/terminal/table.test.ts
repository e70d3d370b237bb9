import { describe, expect, it } from 'vitest';
import { formatTable } from './table.ts';

const columns = [
  { title: 'ID', value: (row: { id: string; size: number }) => row.id },
  { title: 'SIZE', value: (row: { id: string; size: number }) => String(row.size), align: 'right' as const },
];

describe('formatTable', () => {
  it('aligns columns to their widest cell, without spaces at line ends', () => {
    const rows = [
      { id: 'a', size: 12_345 },
      { id: 'longer', size: 7 },
    ];
    expect(formatTable(columns, rows)).toBe('ID       SIZE\na       12345\nlonger      7');
  });

  it('counts characters, not colour codes', () => {
    const text = formatTable(columns, [{ id: '\u001b[32mok\u001b[39m', size: 1 }]);
    expect(text.split('\n')[1]).toBe('\u001b[32mok\u001b[39m     1');
  });

  it('keeps control characters of a guest from the terminal', () => {
    expect(formatTable(columns, [{ id: 'a\n\u001b[2Jb', size: 1 }])).not.toContain(String.fromCharCode(27));
  });

  it('prints only titles for no rows', () => {
    expect(formatTable(columns, [])).toBe('ID  SIZE');
  });
});

import { describe, expect, it } from 'vitest';
import { controlPlaneUrl } from './control-plane-client.ts';

describe('WRENN_CP_URL', () => {
  it.each([
    ['http://localhost:8080', 'http://localhost:8080'],
    ['https://wrenn.example.com/', 'https://wrenn.example.com'],
    ['https://example.com/wrenn/', 'https://example.com/wrenn'],
    ['http://[fd00::1]:8000', 'http://[fd00::1]:8000'],
  ])('is %s', (text, url) => {
    expect(controlPlaneUrl.parse(text)).toBe(url);
  });

  it.each(['localhost:8000', 'ftp://x', 'https://user:secret@x', 'https://x?y=1', 'x'])('is not %s', (text) => {
    expect(controlPlaneUrl.safeParse(text).error?.issues[0]?.message).toMatch(/write "https:/);
  });
});

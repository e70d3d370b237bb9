import { describe, expect, it } from 'vitest';
import { addCounts, countVitest, summaryLine } from './test-counts.ts';

const report = {
  success: true,
  numPassedTests: 2,
  numFailedTests: 0,
  testResults: [
    {
      status: 'passed',
      assertionResults: [
        { status: 'passed', fullName: 'a' },
        { status: 'passed', fullName: 'b' },
        { status: 'skipped', fullName: 'c: needs KVM' },
      ],
    },
  ],
};

describe('countVitest', () => {
  it('counts tests and names the skipped ones', () => {
    expect(countVitest(report, 0)).toEqual({ passed: 2, failed: 0, skipped: ['c: needs KVM'] });
  });

  it('counts a file that breaks outside its tests', () => {
    const broken = { ...report, testResults: [...report.testResults, { status: 'failed', assertionResults: [] }] };
    expect(countVitest(broken, 1).failed).toBe(1);
  });

  it('counts a run that fails without a failed test', () => {
    expect(countVitest(report, 1).failed).toBe(1);
  });
});

describe('summaryLine', () => {
  it('adds up', () => {
    const sum = addCounts({ passed: 1, failed: 0, skipped: ['x'] }, { passed: 2, failed: 3, skipped: [] });
    expect(summaryLine(sum)).toBe('3 passed, 3 failed, 1 skipped');
  });
});

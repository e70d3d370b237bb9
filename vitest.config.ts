import { defineConfig } from 'vitest/config';

/** Ends the PostgreSQL that tests with a database share. */
const STOP_TEST_SERVER = 'apps/control-plane/src/testing/stop-test-server.ts';

export default defineConfig({
  test: {
    // Tests mostly wait: a core that is left to the runner would idle.
    maxWorkers: '100%',
    projects: [
      {
        test: {
          name: 'unit',
          globalSetup: STOP_TEST_SERVER,
          include: ['apps/*/src/**/*.test.ts', 'libs/*/src/**/*.test.ts', 'scripts/**/*.test.ts', 'bench/**/*.test.ts'],
          // More than the longest single wait of a test, which says better what is missing.
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          // What speaks most SQL, once more: on the server that DATABASE_URL names.
          name: 'database-url',
          include: [
            'apps/control-plane/src/{database,jobs}/*.test.ts',
            'apps/control-plane/src/{api-keys,channels,identity,teams}/*-api.test.ts',
            'apps/control-plane/src/audit/{audit-log,partitions,trail}.test.ts',
            'apps/control-plane/src/channels/dispatcher.test.ts',
            'apps/control-plane/src/mail/mails.test.ts',
          ],
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['tests/conformance/**/*.test.ts'],
          // Other people's clients in debug mode all talk to one fixed port.
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'e2e',
          globalSetup: STOP_TEST_SERVER,
          include: ['tests/e2e/**/*.test.ts'],
          // Emulated VMs share few cores; one file at a time keeps timings meaningful.
          fileParallelism: false,
          // Twenty times what it takes here: machines that run many tests at once are slow.
          testTimeout: 300_000,
          hookTimeout: 600_000,
        },
      },
      {
        test: {
          name: 'chaos',
          include: ['tests/chaos/**/*.test.ts'],
          fileParallelism: false,
          // Ends by itself long before; on a machine that is busy with other things everything takes many times as long.
          testTimeout: 1_200_000,
        },
      },
    ],
  },
});

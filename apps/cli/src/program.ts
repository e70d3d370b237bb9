import { Command } from 'commander';
import manifest from '../package.json' with { type: 'json' };
import type { Cli } from './cli.ts';
import { addAccountCommands } from './commands/account/account.ts';
import { addAdminCommands } from './commands/account/admin.ts';
import { addAuditCommand } from './commands/account/audit.ts';
import { addChannelCommands } from './commands/account/channel.ts';
import { addInvitationCommands } from './commands/account/invitations.ts';
import { addKeyCommands } from './commands/account/key.ts';
import { addLoginCommands } from './commands/account/login.ts';
import { addSignUpCommands } from './commands/account/sign-up.ts';
import { addTeamCommands } from './commands/account/team.ts';
import { addAttachCommand } from './commands/attach.ts';
import { addMetricsCommand } from './commands/charts/metrics.ts';
import { addStatsCommand } from './commands/charts/stats.ts';
import { addCopyCommand } from './commands/cp.ts';
import { addCreateCommand } from './commands/create.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addDownCommand } from './commands/down.ts';
import { addExecCommand } from './commands/exec.ts';
import { addHostCommands } from './commands/fleet/host.ts';
import { addForkCommand } from './commands/fork.ts';
import { addHibernateCommand } from './commands/hibernate.ts';
import { addInspectCommand } from './commands/inspect.ts';
import { addLogsCommand } from './commands/logs.ts';
import { addLsCommand } from './commands/ls.ts';
import { addBudgetCommands } from './commands/money/budget.ts';
import { addPoolCommands } from './commands/money/pool.ts';
import { addUsageCommand } from './commands/money/usage.ts';
import { addPauseCommand } from './commands/pause.ts';
import { addPsCommand } from './commands/ps.ts';
import { addResumeCommand } from './commands/resume.ts';
import { addRmCommand } from './commands/rm.ts';
import { addRunCommand } from './commands/run.ts';
import { addSetCommand } from './commands/set.ts';
import { addShellCommand } from './commands/shell.ts';
import { addSnapshotCommand } from './commands/snapshot.ts';
import { addSnapshotsCommand } from './commands/snapshots.ts';
import { addTraceCommand } from './commands/trace.ts';
import { addUpCommand } from './commands/up.ts';
import { addVerifyCommand } from './commands/verify.ts';

const ENVIRONMENT = `
Environment:
  WRENN_API_KEY   key of the API; default: your \`wrenn login\`, else the key that \`wrenn up\` made on this machine
  WRENN_BASE_URL  address of the API; default: the running \`wrenn up\`, else http://localhost:8000
  WRENN_DIR       folder of the platform on this machine; default: /var/lib/wrenn
  WRENN_DEBUG     1 shows the details of errors

An <id> may be the beginning of one, as long as it fits only one capsule.
\`wrenn <command> --help\` shows what a command takes, with an example.`;

/** The whole command line. Parsing throws CommanderError for wrong usage, after printing what is wrong. */
export function buildProgram(cli: Cli): Command {
  const program = new Command('wrenn')
    .description('Run untrusted code in microVMs, on your own machine.')
    .version(manifest.version, '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [command]', 'show the help of a command')
    .showHelpAfterError('(wrenn <command> --help shows what it takes)')
    .enablePositionalOptions()
    .exitOverride()
    .addHelpText('after', ENVIRONMENT);
  program.commandsGroup('This machine:');
  addUpCommand(program, cli);
  addDownCommand(program, cli);
  addDoctorCommand(program, cli);
  program.commandsGroup('Capsules:');
  addRunCommand(program, cli);
  addShellCommand(program, cli);
  addCreateCommand(program, cli);
  addLsCommand(program, cli);
  addInspectCommand(program, cli);
  addTraceCommand(program, cli);
  addMetricsCommand(program, cli);
  addSetCommand(program, cli);
  addRmCommand(program, cli);
  program.commandsGroup('Sleep and copies:');
  addPauseCommand(program, cli);
  addResumeCommand(program, cli);
  addHibernateCommand(program, cli);
  addVerifyCommand(program, cli);
  addForkCommand(program, cli);
  addSnapshotCommand(program, cli);
  addSnapshotsCommand(program, cli);
  program.commandsGroup('Inside a capsule:');
  addExecCommand(program, cli);
  addAttachCommand(program, cli);
  addCopyCommand(program, cli);
  addPsCommand(program, cli);
  addLogsCommand(program, cli);
  program.commandsGroup('People and teams:');
  addSignUpCommands(program, cli);
  addLoginCommands(program, cli);
  addAccountCommands(program, cli);
  addTeamCommands(program, cli);
  addInvitationCommands(program, cli);
  addKeyCommands(program, cli);
  addAuditCommand(program, cli);
  addChannelCommands(program, cli);
  addAdminCommands(program, cli);
  program.commandsGroup('Usage and money:');
  addStatsCommand(program, cli);
  addUsageCommand(program, cli);
  addPoolCommands(program, cli);
  addBudgetCommands(program, cli);
  program.commandsGroup('Many machines:');
  addHostCommands(program, cli);
  return program;
}

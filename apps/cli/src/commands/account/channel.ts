import { CHANNEL_PROVIDERS, type ChannelBody, type DeliveryBody, EVENT_TYPES } from '@wrenn/protocol/rest/channels';
import type { Command } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { formatInstant } from '../../terminal/format.ts';
import { startProgress } from '../../terminal/progress.ts';
import { formatTable } from '../../terminal/table.ts';
import { collectLabel, wholeNumber } from '../options.ts';

interface CreateOptions {
  readonly config?: Record<string, string>;
  readonly event?: string[];
  readonly json?: boolean;
}

export function addChannelCommands(program: Command, cli: Cli): void {
  const channel = program
    .command('channel')
    .description('where the team is told what happens: webhooks, chats, mail')
    .addHelpText(
      'after',
      '\nExample:\n  wrenn channel create alerts webhook --config url=https://example.com/hook --event capsule.error',
    );

  channel
    .command('create')
    .description('tell somebody of events; a new secret of a webhook is printed now and never again')
    .argument('<name>')
    .argument('<provider>', CHANNEL_PROVIDERS.join(', '))
    .option('-c, --config <name=value...>', 'what the provider needs, see docs/channels.md', collectLabel)
    .option('-e, --event <type...>', 'events to tell of; default: all')
    .option('--json', 'print JSON')
    .action(async (name: string, provider: string, options: CreateOptions) => {
      const created = await cli
        .loginApi()
        .createChannel(
          { name, provider, config: options.config ?? {}, events: options.event ?? EVENT_TYPES },
          cli.signal,
        );
      if (options.json) return printJson(created);
      print(created.id);
      if (created.secret) note(`It signs with this secret, which is not shown again: ${created.secret}`);
    });

  channel
    .command('ls')
    .description('list channels')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const channels = await cli.loginApi().listChannels(cli.signal);
      if (options.json) return printJson(channels);
      if (channels.length === 0) return note('There are none. `wrenn channel create` makes one.');
      print(
        formatTable(
          [
            { title: 'CHANNEL', value: ({ id }: ChannelBody) => id },
            { title: 'NAME', value: ({ name }) => name },
            { title: 'PROVIDER', value: ({ provider }) => provider },
            { title: 'STATUS', value: ({ status, disabled_reason }) => disabled_reason ?? status },
            { title: 'EVENTS', value: ({ events }) => describeEvents(events) },
          ],
          channels,
        ),
      );
    });

  channel
    .command('rm')
    .description('remove channels')
    .argument('<channel...>', 'their ids or names')
    .action(async (refs: string[]) => {
      for (const ref of refs) {
        const { id } = await findChannel(cli, ref);
        await cli.loginApi().deleteChannel(id, cli.signal);
        print(id);
      }
    });

  channel
    .command('test')
    .description('send a test through a channel')
    .argument('<channel>', 'its id or name')
    .action(async (ref: string) => {
      const { id, name } = await findChannel(cli, ref);
      using _ = startProgress('sending');
      await cli.loginApi().testChannel(id, cli.signal);
      print(`${name} took it`);
    });

  const deliveries = channel
    .command('deliveries')
    .description('show what a channel was told of, newest first')
    .argument('<channel>', 'its id or name')
    .option('-n, --lines <count>', 'at most so many', wholeNumber(1), 20)
    .option('--json', 'print JSON')
    .action(async (ref: string, options: { lines: number; json?: boolean }) => {
      const { id } = await findChannel(cli, ref);
      const { items } = await cli.loginApi().listDeliveries(id, options.lines, cli.signal);
      if (options.json) return printJson(items);
      if (items.length === 0) return note('It was told of nothing yet.');
      print(
        formatTable(
          [
            { title: 'DELIVERY', value: ({ id }: DeliveryBody) => id },
            { title: 'EVENT', value: ({ event }) => event.type },
            { title: 'OF', value: ({ event }) => event.resource.id },
            { title: 'WHEN', value: ({ created_at }) => formatInstant(created_at) },
            { title: 'STATUS', value: ({ status }) => status },
            { title: 'TRIES', value: ({ attempts }) => String(attempts.length), align: 'right' },
            { title: 'ANSWER', value: ({ attempts }) => describeAttempt(attempts.at(-1)) },
          ],
          items,
        ),
      );
    });
  deliveries
    .command('again')
    .description('tell a channel of something once more')
    .argument('<channel>', 'its id or name')
    .argument('<delivery>', 'id of the delivery')
    .action(async (ref: string, deliveryId: string) => {
      const { id } = await findChannel(cli, ref);
      print((await cli.loginApi().redeliver(id, deliveryId, cli.signal)).id);
    });
}

async function findChannel(cli: Cli, ref: string): Promise<ChannelBody> {
  const channels = await cli.loginApi().listChannels(cli.signal);
  const channel = channels.find(({ id, name }) => id === ref || name === ref);
  if (!channel) throw new CliError(`There is no channel ${ref}.`, '`wrenn channel ls` lists them.');
  return channel;
}

function describeEvents(events: readonly string[]): string {
  if (events.length === EVENT_TYPES.length) return 'all';
  const [first = '-', ...rest] = events;
  return rest.length === 0 ? first : `${first} and ${rest.length} more`;
}

function describeAttempt(attempt: DeliveryBody['attempts'][number] | undefined): string {
  if (!attempt) return '-';
  return [attempt.status_code, attempt.error].filter((part) => part !== null).join(' ');
}

import { text as readText } from 'node:stream/consumers';
import inputPrompt from '@inquirer/input';
import passwordPrompt from '@inquirer/password';
import type { Cli } from '../cli.ts';
import { CliError } from '../cli-error.ts';

/** @throws CliError where nobody is there to answer */
export async function ask(cli: Cli, question: string, option: string): Promise<string> {
  requireTerminal(question, option);
  return (await prompt(cli, () => inputPrompt({ message: question, required: true }, contextOf(cli)))).trim();
}

/** Asks for a secret, which is not shown. @throws CliError where nobody is there to answer */
export async function askSecret(cli: Cli, question: string, option: string): Promise<string> {
  requireTerminal(question, option);
  return prompt(cli, () => passwordPrompt({ message: question, mask: '*' }, contextOf(cli)));
}

/** A password from the first line of stdin where the command was told so, else by asking. */
export async function readPassword(cli: Cli, question: string, fromStdin: boolean | undefined): Promise<string> {
  if (!fromStdin) return askSecret(cli, question, '--password-stdin');
  const [line = ''] = (await readText(process.stdin)).split('\n');
  if (line === '') throw new CliError('There is no password on stdin.', 'Write it as the first line.');
  return line.replace(/\r$/, '');
}

function contextOf(cli: Cli) {
  // Beside the result, which programs may read.
  return { output: process.stderr, signal: cli.signal };
}

function requireTerminal(question: string, option: string): void {
  if (process.stdin.isTTY && process.stderr.isTTY) return;
  throw new CliError(`Nobody is there to answer "${question}".`, `Give it with ${option}.`);
}

async function prompt(cli: Cli, work: () => Promise<string>): Promise<string> {
  try {
    return await work();
  } catch (error) {
    cli.signal.throwIfAborted();
    if (error instanceof Error && error.name === 'ExitPromptError') throw new CliError('Nothing was done.');
    throw error;
  }
}

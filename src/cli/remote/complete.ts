import type { Argument, Command, Option } from 'commander';
import type { AgentLLM } from '../../client/index.js';
import { openConnection } from '../kit/connection.js';
import { inputOf } from '../kit/inputs.js';
import type { NameSource } from '../kit/values.js';
import { modelOf } from './config_fields.js';

/*
 * `agentllm __complete WORD…`, which the scripts of completion.ts run: prints the
 * candidates for the last word, one line each: the word, a tab, its description. The
 * line `:files` stands for the names of files. Errors print nothing.
 */

/** The deadline is short, because the user waits at the prompt. */
const DEADLINE_MS = 800;

interface Candidate {
  readonly word: string;
  readonly description: string;
}
const candidate = (word: string, description = ''): Candidate => ({ word, description });

export async function complete(program: Command, typed: readonly string[]): Promise<void> {
  // bash splits `--model=openai` into three words.
  const words = typed.filter((word, at) => word !== '=' || at === 0);
  const found = await candidatesFor(program, words).catch(() => []);
  const start = words.at(-1) ?? '';
  // A name with a line break cannot be passed to a shell.
  for (const { word, description } of found)
    if ((word === ':files' || word.startsWith(start)) && !/[\p{Cc}]/u.test(word))
      process.stdout.write(`${word}\t${shortDescription(description)}\n`);
}

const shortDescription = (description: string) =>
  description
    .replace(/\p{Cc}/gu, ' ')
    .replace(/[;:(].*/s, '')
    .trim();

async function candidatesFor(program: Command, words: readonly string[]): Promise<Candidate[]> {
  const start = words.at(-1) ?? '';
  const { command, args, pendingOption, optionValues } = parseWords(program, words.slice(0, -1));
  if (pendingOption) return valuesOf(pendingOption, optionValues);
  const [, long, equals] = /^(--[\w-]+)(=)/.exec(start) ?? [];
  const assigned = equals && command.options.find((option) => option.long === long);
  if (assigned)
    return (await valuesOf(assigned, optionValues)).map(({ word, description }) =>
      candidate(`${long}=${word}`, description),
    );
  if (start.startsWith('-')) return optionsOf(command);
  if (command.commands.length > 0) return command.commands.map((one) => candidate(one.name(), one.description()));
  const { registeredArguments } = command;
  const argument =
    registeredArguments[args] ?? (registeredArguments.at(-1)?.variadic ? registeredArguments.at(-1) : undefined);
  return argument ? valuesOf(argument, optionValues) : optionsOf(command);
}

interface CursorPosition {
  readonly command: Command;
  /** The number of arguments before the cursor. */
  readonly args: number;
  /** The option that expects a value. */
  readonly pendingOption: Option | undefined;
  /** The values of the options, among them those for the connection. */
  readonly optionValues: ReadonlyMap<string, unknown>;
}

/** Parses words as commander does, but ignores errors. */
function parseWords(program: Command, words: readonly string[]): CursorPosition {
  let command = program;
  let args = 0;
  let pendingOption: Option | undefined;
  const optionValues = new Map<string, unknown>();
  for (const word of words) {
    if (pendingOption) {
      optionValues.set(pendingOption.long?.slice(2) ?? '', word);
      pendingOption = undefined;
    } else if (word.startsWith('-')) {
      const [, name = word, value] = /^(--[^=]+)=(.*)$/s.exec(word) ?? [];
      const option = command.options.find(({ short, long }) => name === short || name === long);
      if (value !== undefined) optionValues.set(name.slice(2), value);
      else if (option?.required) pendingOption = option;
      else if (option) optionValues.set(option.long?.slice(2) ?? '', true);
    } else {
      const next = command.commands.find((one) => one.name() === word);
      if (next) command = next;
      else args++;
    }
  }
  return { command, args, pendingOption, optionValues };
}

const optionsOf = (command: Command): Candidate[] => [
  ...command.options.map(({ long, short, description }) => candidate(long ?? short ?? '', description)),
  candidate('--help', 'display help for command'),
];

async function valuesOf(one: Option | Argument, optionValues: CursorPosition['optionValues']): Promise<Candidate[]> {
  const input = inputOf.get(one);
  if (input?.name === 'from-file' || input?.kind.nameSource === 'files') return [candidate(':files')];
  const choices = input?.kind.choices ?? input?.kind.suggestions ?? one.argChoices;
  if (choices) return choices.map((choice) => candidate(choice));
  return input?.kind.nameSource ? namesFromService(input.kind.nameSource, optionValues) : [];
}

/** Names of resources of the service; empty when it does not respond within the deadline. */
async function namesFromService(
  source: NameSource,
  optionValues: CursorPosition['optionValues'],
): Promise<Candidate[]> {
  const where = new Map(optionValues);
  where.delete('timeout');
  const { api } = openConnection(where, { deadlineMs: DEADLINE_MS, retry: false });
  try {
    return await NAME_READERS[source](api);
  } finally {
    api.close();
  }
}

/** The largest number of candidates. Typing more letters narrows them. */
const MAX_NAMES = 1000;

/** Reads pages until there are enough names or the deadline has passed. */
async function collectPages(
  list: (page: object) => Promise<{ readonly found: Candidate[]; readonly next: string }>,
): Promise<Candidate[]> {
  const names: Candidate[] = [];
  const end = performance.now() + DEADLINE_MS;
  let page_token = '';
  do {
    const { found, next } = await list({ page_size: MAX_NAMES - names.length, page_token });
    names.push(...found);
    page_token = next;
  } while (page_token !== '' && names.length < MAX_NAMES && performance.now() < end);
  return names;
}

const NAME_READERS: Readonly<Record<NameSource, (api: AgentLLM) => Promise<Candidate[]>>> = {
  agents: (api) =>
    collectPages(async (page) => {
      const { agents, next_page_token: next } = await api.agents.listAgents(page);
      return { found: agents.map(({ name, agent_type }) => candidate(name, agent_type)), next };
    }),
  budgets: (api) =>
    collectPages(async (page) => {
      const { budgets, next_page_token: next } = await api.budgets.listBudgets(page);
      return { found: budgets.map(({ name, description }) => candidate(name, description)), next };
    }),
  configs: (api) =>
    collectPages(async (page) => {
      const { configs, next_page_token: next } = await api.configs.listConfigs(page);
      const found = configs.map((config) => candidate(`${config.id}`, `${config.agent_name} ${modelOf(config)}`));
      return { found, next };
    }),
  credentials: (api) =>
    collectPages(async (page) => {
      const { credentials, next_page_token: next } = await api.credentials.listCredentials(page);
      return { found: credentials.map(({ name, provider }) => candidate(name, provider)), next };
    }),
  experiments: (api) =>
    collectPages(async (page) => {
      const { experiments, next_page_token: next } = await api.experiments.listExperiments(page);
      return { found: experiments.map(({ name, agent_name }) => candidate(name, agent_name)), next };
    }),
  models: (api) =>
    collectPages(async (page) => {
      const { models, next_page_token: next } = await api.providers.listModels(page);
      return { found: models.map(({ provider, name }) => candidate(`${provider}/${name}`)), next };
    }),
  providers: (api) =>
    collectPages(async (page) => {
      const { providers, next_page_token: next } = await api.providers.listProviders(page);
      return { found: providers.map(({ name, display_name }) => candidate(name, display_name)), next };
    }),
  files: async () => [],
};

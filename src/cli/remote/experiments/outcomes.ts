import { randomUUID } from 'node:crypto';
import { Outcome, type OutcomeResult } from '../../../../gen/ts/agentllm/v1/experiment.js';
import { RecordOutcomeRequest } from '../../../../gen/ts/agentllm/v1/experiment_service.js';
import { maxElements } from '../../../max_elements.js';
import { readNamedFile } from '../../kit/connection.js';
import { Exit } from '../../kit/error_output.js';
import { decodeJson } from '../../kit/from_file.js';
import { UsageError } from '../../kit/inputs.js';
import { counted, small, table } from '../../kit/print.js';
import type { Call, RemoteCommand } from '../../kit/remote_command.js';
import { readStdin } from '../../kit/stdin.js';
import { BadValue, experiment, file, type Kind, list, number, time, word } from '../../kit/values.js';

/* `agentllm experiments record-outcome`: outcomes of subjects, from the command line or from a file. */

type Value = Pick<Outcome, 'name' | 'number' | 'boolean'>;

/** An outcome: `accuracy=0.93`, `hit=true`. */
export const outcomeValue: Kind = {
  value: 'name=value',
  read(raw): Value {
    const [, name, value = ''] = /^([^=]+)=(.+)$/s.exec(raw) ?? [];
    if (!name) throw new BadValue('must have the form NAME=VALUE, such as accuracy=0.93 or hit=true');
    if (value === 'true' || value === 'false') return { name, boolean: value === 'true' };
    return { name, number: number.read(value) as number };
  },
};

export const recordOutcome: RemoteCommand = {
  name: 'record-outcome',
  description: 'record outcomes of a subject, such as whether a recommendation was right',
  more: `The subject or the run must have had a call in an experiment of the agent; the outcome counts for the variant of that
call. An outcome can be recorded late, even after the conclusion of the experiment. It counts once: repeating it with the
same id changes nothing. A file has one JSON object per line, or a JSON array, with the fields outcome_id (a UUID),
agent, subject or run_id, name, and number or boolean. The exit code is 1 if an outcome was rejected.`,
  inputs: [
    { name: '[outcomes...]', kind: outcomeValue, help: 'NAME=NUMBER, NAME=true or NAME=false' },
    { name: 'agent', kind: word('name', 'agents'), help: 'the name of the agent; required unless a file is read' },
    { name: 'subject', kind: word('subject'), help: 'the subject' },
    { name: 'run', kind: word('id'), help: 'the run, if the subject is not given' },
    { name: 'experiment', kind: experiment, help: 'the experiment (default: the experiment of the latest call)' },
    { name: 'observed-at', kind: time, help: 'the time of the observation (default: now)' },
    {
      name: 'id',
      kind: list(word('uuid')),
      help: 'the id of the outcome, a UUID (default: random); can be repeated, once for each outcome',
    },
    { name: 'from-file', short: 'f', kind: file, help: 'JSON file with outcomes; - is standard input' },
  ],
  examples: [
    ['agentllm experiments record-outcome hit=true return=0.031 --agent trader --subject run-17', 'two outcomes'],
    [
      `echo '{"outcome_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","agent":"trader","subject":"run-17","name":"hit","boolean":true}' | agentllm experiments record-outcome --from-file -`,
      'outcomes as JSON objects, one per line',
    ],
  ],
  next: 'agentllm experiments results <name> shows the outcomes of each variant',
  async run(call) {
    const outcomes = await outcomesOf(call);
    const results: OutcomeResult[] = [];
    for (let from = 0; from < outcomes.length; from += BATCH)
      results.push(
        ...(await call.api.experiments.recordOutcome({ outcomes: outcomes.slice(from, from + BATCH) })).results,
      );
    const count = (status: string) => results.filter((one) => one.status === `OUTCOME_STATUS_${status}`).length;
    const counts = { new_count: count('NEW'), known_count: count('KNOWN'), rejected_count: count('REJECTED') };
    call.print({ results, ...counts }, () => textOf(results, counts));
    return counts.rejected_count > 0 ? Exit.failed : Exit.done;
  },
};

/** The largest number of outcomes in a request. */
const BATCH = maxElements['agentllm.v1.RecordOutcomeRequest.outcomes'];

async function outcomesOf(call: Call): Promise<Partial<Outcome>[]> {
  const values = call.local<readonly Value[]>('[outcomes...]') ?? [];
  const path = call.local<string>('from-file');
  if (path !== undefined && values.length > 0)
    throw UsageError.of([
      { typed: '--from-file', description: 'cannot be combined with outcomes on the command line' },
    ]);
  if (path !== undefined) return readOutcomes(path);
  const [agent, subject, run_id] = ['agent', 'subject', 'run'].map((name) => call.local<string>(name));
  const missing = [
    ...(values.length > 0 ? [] : [{ typed: '[outcomes...]', description: 'is required, such as hit=true' }]),
    ...(agent ? [] : [{ typed: '--agent', description: 'is required' }]),
    ...(subject || run_id ? [] : [{ typed: '--subject', description: 'is required, or --run' }]),
  ];
  const ids = call.local<readonly string[]>('id') ?? [];
  if (ids.length > 0 && ids.length !== values.length)
    missing.push({ typed: '--id', description: `must be set once for each of the ${values.length} outcomes` });
  if (missing.length > 0) throw UsageError.of(missing);
  return values.map((value, at) => ({
    ...value,
    outcome_id: ids[at] ?? randomUUID(),
    agent,
    subject,
    run_id,
    experiment: call.local<string>('experiment'),
    observed_at: call.local<Date>('observed-at'),
  })) as Partial<Outcome>[];
}

async function readOutcomes(path: string): Promise<Outcome[]> {
  const typed = `--from-file ${path}`;
  const content = path === '-' ? await readStdin() : readNamedFile(typed, path);
  const outcomes = content.trimStart().startsWith('[') ? readArray(content, typed) : readLines(content, typed);
  if (outcomes.length === 0) throw UsageError.of([{ typed, description: 'has no outcomes' }]);
  return outcomes;
}

function readArray(content: string, typed: string): Outcome[] {
  const outcomes = parsed(content, typed);
  const request = { type: 'RecordOutcomeRequest', message: RecordOutcomeRequest };
  return decodeJson(request, { outcomes }, typed).outcomes;
}

const readLines = (content: string, typed: string): Outcome[] =>
  content.split(/\r?\n/).flatMap((line, at) => {
    if (line.trim() === '') return [];
    const where = `${typed} line ${at + 1}`;
    return [decodeJson({ type: 'Outcome', message: Outcome }, parsed(line, where), where)];
  });

function parsed(content: string, typed: string) {
  try {
    return JSON.parse(content);
  } catch {
    throw UsageError.of([{ typed, description: 'must be JSON' }]);
  }
}

const MAX_REJECTIONS = 20;

function textOf(
  results: readonly OutcomeResult[],
  { new_count, known_count, rejected_count }: Readonly<Record<string, number>>,
): string {
  const rejected = results.filter(({ status }) => status === 'OUTCOME_STATUS_REJECTED');
  const shown = rejected
    .slice(0, MAX_REJECTIONS)
    .map(({ outcome_id, rejection, message }) => [outcome_id, small(rejection, 'OUTCOME_REJECTION_'), message]);
  const more = rejected.length > shown.length ? [`and ${rejected.length - shown.length} more`] : [];
  const known = known_count ? `, ${known_count} already recorded` : '';
  const rejections = rejected_count ? `, ${rejected_count} rejected` : '';
  return [
    `recorded ${counted(new_count ?? 0, 'outcome')}${known}${rejections}`,
    ...variantCounts(results),
    ...(shown.length > 0 ? [table(['OUTCOME', 'REJECTED', 'WHY'], shown), ...more] : []),
  ].join('\n');
}

/** The number of new outcomes of each variant. */
function variantCounts(results: readonly OutcomeResult[]): string[] {
  const counts = new Map<string, number>();
  for (const { status, experiment, variant } of results) {
    if (status !== 'OUTCOME_STATUS_NEW') continue;
    const name = `${experiment}, variant ${variant}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => `  ${count} for ${name}`);
}

import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { unique } from '../../../support/service.js';
import { usageRecord } from '../../../support/usage.js';
import { rowsOf, useCli, useDirectory } from '../../support.js';

const cli = useCli();
const directory = useDirectory();

const CHEAP = 'cheap=openai/gpt-5.4-mini@50%';

/** A new agent with a primary config, as an experiment needs it. */
async function newAgent(): Promise<string> {
  const agent = unique('agent');
  await cli.json(['agents', 'create', agent, '--type', 'analyst']);
  await cli.json(['configs', 'create', agent, '--model', 'openai/gpt-5.4']);
  return agent;
}

async function newExperiment(...more: string[]): Promise<{ readonly agent: string; readonly name: string }> {
  const [agent, name] = [await newAgent(), unique('model')];
  await cli.json(['experiments', 'create', name, '--agent', agent, '--variant', CHEAP, '--metric', 'cost', ...more]);
  return { agent, name };
}

/** Records a call of each subject: of the control at first, then of the variant in turns. */
async function recordCalls(agent: string, experiment: string, subjects: readonly string[]): Promise<void> {
  const call = { outcome: 'RECEIPT_OUTCOME_COMPLETED' as const, duration_ms: 500, hop_index: 0, last_attempt: true };
  const { id = 0 } = (await cli.service().agents.getAgent({ agent: { name: agent } })).agent ?? {};
  const records = subjects.map((subject, at) => ({
    ...usageRecord({ agent, agent_id: id, attempt: { model_name: at % 2 === 0 ? 'gpt-5.4' : 'gpt-5.4-mini' } }),
    ...{ experiment, variant: at % 2 === 0 ? 'control' : 'cheap', subject, call },
  }));
  const { rejected_count } = await cli.service().usage.recordUsage({ records });
  expect(rejected_count).toBe(0);
}

describe('agentllm experiments', () => {
  it('creates, starts, pauses, resumes and concludes an experiment with a winner', async () => {
    const { agent, name } = await newExperiment('--guardrail', 'error rate +2pp', '--hypothesis', 'cheaper');
    const listed = await cli(['experiments', 'list', '--agent', agent]);
    expect(rowsOf(listed.stdout)).toMatchObject([
      { EXPERIMENT: name, STATE: 'draft', METRIC: 'cost per call', VARIANTS: 'control 50 %, cheap 50 %' },
    ]);
    const started = await cli(['experiments', 'start', name]);
    expect(started.stdout).toMatch(/^started experiment .*\n {2}50 % control: primary config\n {2}50 % cheap: /);
    await cli.json(['experiments', 'pause', name, '--reason', 'release day']);
    const status = await cli(['experiments', 'status', name]);
    expect(status.stdout).toMatch(/is paused[\s\S]*release day[\s\S]*Next: agentllm experiments resume/);
    await cli.json(['experiments', 'resume', name]);
    const concluded = await cli(['experiments', 'conclude', name, '--winner', 'cheap']);
    expect(concluded.stdout).toMatch(/its primary config, has the settings of cheap: openai\/gpt-5\.4-mini/);
    const { config } = await cli.json(['configs', 'primary', agent]);
    expect(config).toMatchObject({ provider: 'openai', model_name: 'gpt-5.4-mini' });
    const shown = await cli(['experiments', 'show', name]);
    expect(shown.stdout).toMatch(/state +concluded[\s\S]*guardrails +error rate \+2 pp[\s\S]*winner +cheap/);
  });

  it('creates an experiment from a file, written by show --json', async () => {
    const { agent, name } = await newExperiment();
    const file = `${directory()}/experiment.json`;
    await writeFile(file, (await cli(['experiments', 'show', name, '--json'])).stdout);
    const copy = unique('copy');
    const { experiment } = await cli.json(['experiments', 'create', copy, '--agent', agent, '--from-file', file]);
    expect(experiment).toMatchObject({ name: copy, variants: [{ name: 'control' }, { name: 'cheap' }] });
  });

  it('states which subjects a change of weights moves', async () => {
    const { name } = await newExperiment();
    const updated = await cli([
      'experiments',
      'update',
      name,
      '--weight',
      'cheap=20%',
      '--variant',
      'cool=temperature=0.1@5%',
    ]);
    expect(updated.stdout.split('\n').slice(1, 3)).toEqual([
      '  25 % of the subjects move from cheap to control',
      '  5 % of the subjects move from cheap to cool',
    ]);
  });

  it('deletes a draft', async () => {
    const { name } = await newExperiment();
    await cli.json(['experiments', 'delete', name]);
    const { code, stderr } = await cli(['experiments', 'show', name]);
    expect(code).toBe(2);
    expect(stderr).toContain('agentllm experiments list shows the experiments');
  });

  it('needs the agent if several have an experiment with the name', async () => {
    const { agent, name } = await newExperiment();
    const other = await newAgent();
    await cli.json(['experiments', 'create', name, '--agent', other, '--variant', CHEAP, '--metric', 'cost']);
    const { code, stderr } = await cli(['experiments', 'show', name]);
    expect([code, stderr]).toEqual([2, expect.stringContaining(`(${agent}, ${other}): choose one with --agent`)]);
    expect((await cli.json(['experiments', 'show', name, '--agent', other])).experiment.agent_name).toBe(other);
  });

  it('names the option of a field that the service rejects', async () => {
    const agent = await newAgent();
    const args = ['experiments', 'create', unique('model'), '--agent', agent, '--metric', 'cost'];
    const { code, stderr } = await cli([...args, '--variant', 'hot=temperature=3@10%', '--alpha', '60%']);
    expect(code).toBe(2);
    expect(stderr).toContain('--variant hot=temperature=3@10%');
    expect(stderr).toContain('--alpha 60%');
  });

  it.each([
    [
      ['create', 'x'],
      ['--agent', '--metric', '--variant'],
    ],
    [['conclude', 'x'], ['--winner']],
    [['conclude', 'x', '--winner', 'a', '--without-winner'], ['--without-winner']],
    [['update', 'x'], ['nothing to change']],
    [['results', 'x', '--csv', '--json'], ['--csv']],
    [['record-outcome'], ['[outcomes...]', '--agent', '--subject']],
  ])('rejects %j and names the missing options', async (args, texts) => {
    const { code, stderr } = await cli(['experiments', ...args]);
    expect(code).toBe(2);
    for (const text of texts) expect(stderr).toContain(text);
  });

  it('prints recorded calls and outcomes as a table, CSV and JSON', async () => {
    const { agent, name } = await newExperiment();
    await cli.json(['experiments', 'start', name]);
    const subjects = Array.from({ length: 240 }, (_, at) => `run-${at}`);
    await recordCalls(agent, name, subjects);
    const outcome = await cli([
      'experiments',
      'record-outcome',
      'hit=true',
      'loss=0.5',
      '--agent',
      agent,
      '--subject',
      'run-1',
    ]);
    expect(outcome.stdout).toBe(`recorded 2 outcomes\n  2 for ${name}, variant cheap\n`);
    const { stdout } = await cli(['experiments', 'results', name]);
    expect(stdout).toMatch(/^cheap +50 % +120 +120 +0 % /m);
    expect(stdout).toMatch(/cost per call \(primary\) +control .*\n +cheap .* better +├?─*●/);
    expect(stdout).toContain(`cheap is better than control in cost per call, with 95 % confidence`);
    expect(stdout).toContain(`Next: agentllm experiments conclude ${name} --agent ${agent} --winner cheap`);
    const csv = (await cli(['experiments', 'results', name, '--csv'])).stdout.split('\n');
    expect(csv[0]).toMatch(/^variant,control,metric,view,subjects,value,difference,low,high,/);
    expect(csv.find((line) => line.startsWith('cheap,no,cost per call,intention-to-treat,120,'))).toMatch(/,better$/);
    const { verdict } = await cli.json(['experiments', 'results', name]);
    expect(verdict).toBe('EXPERIMENT_VERDICT_VARIANT_BETTER');
    const limited = await cli(['experiments', 'status', name, '--limit', '1']);
    expect([limited.code, limited.stderr]).toEqual([2, expect.stringContaining('--limit  cannot be combined')]);
    const all = await cli(['experiments', 'status']);
    expect(rowsOf(all.stdout).find((row) => row['EXPERIMENT'] === name)).toMatchObject({
      SUBJECTS: '240',
      RESULT: 'variant better: cheap',
    });
  });

  it('records the outcomes of a file once, and reports those that are rejected', async () => {
    const { agent, name } = await newExperiment();
    await cli.json(['experiments', 'start', name]);
    await recordCalls(agent, name, ['run-1', 'run-2']);
    const line = (subject: string) =>
      JSON.stringify({ outcome_id: randomUUID(), agent, subject, name: 'hit', boolean: true });
    const stdin = `${[line('run-1'), line('run-2'), '', line('unseen')].join('\n')}\n`;
    const first = await cli(['experiments', 'record-outcome', '--from-file', '-'], { stdin });
    expect(first.code).toBe(1);
    expect(first.stdout).toMatch(/^recorded 2 outcomes, 1 rejected\n[\s\S]*not-seen/);
    const again = await cli(['experiments', 'record-outcome', '--from-file', '-'], { stdin });
    expect(again.stdout).toMatch(/^recorded 0 outcomes, 2 already recorded, 1 rejected\n/);
    const broken = await cli(['experiments', 'record-outcome', '--from-file', '-'], { stdin: `${line('run-1')}\n{` });
    expect([broken.code, broken.stderr]).toEqual([2, expect.stringContaining('--from-file - line 2')]);
  });
});

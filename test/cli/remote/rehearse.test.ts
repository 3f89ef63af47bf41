import { beforeAll, describe, expect, it } from 'vitest';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();

/** The table of calls, which follows the hops of the chain. */
const callsOf = (printed: string) => rowsOf(printed.split('\n\n')[1] ?? '');

beforeAll(async () => {
  const fallback = ['--fallback', 'claude/claude-haiku-5-5'];
  await cli.json(['configs', 'upsert', 'trader', '--model', 'openai/gpt-5.2', ...fallback]);
});

describe('agentllm rehearse', () => {
  it('prints the attempts and the outcome for one fault of each class', async () => {
    const { code, stdout, stderr } = await cli(['rehearse', 'trader']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^trader at revision \d+, without a stream\n {2}hop 0 {2}openai\/gpt-5.2\n {2}hop 1 {2}claude/,
    );
    const rows = callsOf(stdout);
    expect(rows).toHaveLength(15);
    expect(rows[0]).toEqual({ FAULT: 'none', ATTEMPTS: '0 ok', OUTCOME: 'hop 0 responds', TIME: '0 s' });
    expect(rows.find(({ FAULT }) => FAULT === 'rate-limit')).toEqual({
      FAULT: 'rate-limit',
      ATTEMPTS: '0 rate-limit (retry), 0 rate-limit (next hop), 1 ok',
      OUTCOME: 'hop 1 responds',
      TIME: '0.25 s',
    });
    expect(rows.find(({ FAULT }) => FAULT === 'content-policy')?.['OUTCOME']).toBe('error, no other attempt is made');
  });

  it('rehearses the named faults with their options, in the mode of a stream', async () => {
    const faults = ['--fault', 'overloaded,times=1', '--fault', 'cut-stream'];
    const live = await cli(['rehearse', 'trader', ...faults, '--stream']);
    expect(callsOf(live.stdout).map(({ ATTEMPTS, OUTCOME }) => [ATTEMPTS, OUTCOME])).toEqual([
      ['0 overloaded (retry), 0 ok', 'hop 0 responds'],
      ['0 torn (stop)', 'error after a part of the stream'],
    ]);
    const whole = await cli(['rehearse', 'trader', ...faults, '--whole']);
    expect(callsOf(whole.stdout)[1]).toMatchObject({ ATTEMPTS: '0 torn (next hop), 1 ok', OUTCOME: 'hop 1 responds' });
    expect([live.code, whole.code]).toEqual([0, 0]);
  });

  it('prints the finish reason of a response that is not complete', async () => {
    const { stdout } = await cli(['rehearse', 'trader', '--fault', 'length-finish']);
    expect(callsOf(stdout)[0]).toMatchObject({ ATTEMPTS: '0 ok', OUTCOME: 'hop 0 responds (length)' });
  });

  it('prints the hops that a call skips', async () => {
    const smaller = ['--model', 'openai/gpt-5.2', '--fallback', 'claude/claude-haiku-4-5'];
    await cli.json(['configs', 'upsert', 'news_analyst', ...smaller]);
    await cli.json(['configs', 'create', 'news_analyst', '--model', 'claude/claude-sonnet-5-5', '--priority', '1']);
    const { code, stdout } = await cli(['rehearse', 'news_analyst', '--fault', 'context-length']);
    expect([code, callsOf(stdout)[0]]).toEqual([
      0,
      expect.objectContaining({
        ATTEMPTS: '0 context-overflow (larger context), 2 ok, 1 skipped (context too small)',
        OUTCOME: 'hop 2 responds',
      }),
    ]);
  });

  it('ends with 1 when a call fails although another hop could be tried', async () => {
    const { code, stdout } = await cli(['rehearse', 'trader', '--fault', 'quota', '--hops', '9']);
    expect(code).toBe(1);
    expect(callsOf(stdout)[0]).toMatchObject({ ATTEMPTS: '0 quota (next hop), 1 quota (stop)' });
    expect(stdout).toMatch(
      /\n\n1 of 1 call failed; agentllm configs upsert trader --fallback provider\/model adds a hop\n$/,
    );
  });

  it('rehearses the chain of an earlier revision, or without a provider', async () => {
    const down = await cli(['rehearse', 'trader', '--fault', 'quota', '--down', 'openai,grok']);
    expect([down.code, callsOf(down.stdout)[0]?.['ATTEMPTS']]).toEqual([1, '1 quota (stop)']);
    expect(down.stdout).toMatch(/\n {2}hop 0 {2}openai\/gpt-5.2, skipped \(provider down\)\n {2}hop 1 {2}claude/);
    const earlier = await cli(['rehearse', 'trader', '--fault', 'quota', '--at', '3']);
    expect(earlier.stdout).toMatch(/^trader at revision 3, .*\n {2}hop 0 {2}openai\/gpt-4\n\n/);
  });

  it('prints the receipts with --json', async () => {
    const result = await cli.json(['rehearse', 'trader', '--fault', 'quota', '--stream']);
    expect(result).toMatchObject({
      agent: 'trader',
      mode: 'live',
      failing_hops: [0],
      hops: [
        { index: 0, provider: 'openai' },
        { index: 1, provider: 'claude', wire_api: 'WIRE_API_MESSAGES' },
      ],
      calls: [{ fault: 'quota', error_class: 'QUOTA', result: 'responds', message: '' }],
    });
    const [{ receipt }] = result.calls;
    expect(receipt).toMatchObject({ outcome: 'RECEIPT_OUTCOME_COMPLETED', mode: 'RECEIPT_MODE_LIVE', hop_index: 1 });
    expect(receipt.attempts).toHaveLength(2);
  });

  it('ends with 1 for an agent without a usable model', async () => {
    const create = ['--dialect', 'openai-compatible', '--base-url', 'https://llm.example.com/v1'];
    await cli.json(['providers', 'create', 'desk', ...create]);
    await cli.json(['configs', 'upsert', 'market_analyst', '--model', 'desk/large']);
    await cli.json(['providers', 'update', 'desk', '--no-enabled']);
    const { code, stdout } = await cli(['rehearse', 'market_analyst']);
    expect([code, stdout]).toEqual([1, expect.stringContaining('agentllm resolve market_analyst shows why')]);
  });

  it('changes nothing', async () => {
    const before = await cli.json(['resolve', 'trader']);
    await cli(['rehearse', 'trader', '--all']);
    expect(await cli.json(['resolve', 'trader'])).toEqual(before);
  });

  it.each([
    [['--fault', 'nonsense'], 2, 'there is no fault "nonsense"'],
    [['--hops', '0'], 2, 'must be at least 1'],
    [['--stream', '--whole'], 2, '--stream is a stream in live mode'],
    [['--all', '--fault', 'quota'], 2, '--all includes every fault'],
  ])('rejects %j', async (args, expected, problem) => {
    const { code, stderr } = await cli(['rehearse', 'trader', ...args]);
    expect([code, stderr]).toEqual([expected, expect.stringContaining(problem)]);
  });

  it('rejects more than 100 faults', async () => {
    const { code, stderr } = await cli(['rehearse', 'trader', ...Array(101).fill(['--fault', 'quota']).flat()]);
    expect([code, stderr]).toEqual([2, expect.stringContaining('must be given at most 100 times')]);
  });

  it('reports an agent that does not exist', async () => {
    expect((await cli(['rehearse', 'missing'])).code).toBe(3);
  });
});

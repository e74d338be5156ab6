#!/usr/bin/env node
import { Command } from 'commander';
import { diagnose, examine, type Finding } from '../doctor.js';

const signs = { ok: '✓', missing: '✗', note: '·' } as const;

function print(findings: readonly Finding[]): void {
  const width = Math.max(...findings.map(({ name }) => name.length));
  for (const { name, verdict, found, advice } of findings) {
    process.stdout.write(`${signs[verdict]} ${name.padEnd(width)}  ${found}\n`);
    if (advice !== undefined) process.stdout.write(`  ${' '.repeat(width)}  → ${advice}\n`);
  }
}

const program = new Command('rpal')
  .description('Calls between processes of one host as between functions of one process.')
  // bin/rpal starts that without Node.js.
  .addHelpText(
    'after',
    '\n  run [options] -- PROGRAM   starts a program as an RPAL service; see rpal run --help',
  );

program
  .command('doctor')
  .description('says what RPAL needs here and what is missing; status 1 if something is')
  .option('--json', 'for programs')
  .action((options: { json?: boolean }) => {
    const findings = diagnose(examine());
    if (options.json) process.stdout.write(`${JSON.stringify(findings, null, 2)}\n`);
    else print(findings);
    if (findings.some(({ verdict }) => verdict === 'missing')) process.exitCode = 1;
  });

program.parse();

// Small records with every field set, for tests.
#pragma once

#include <string>
#include <tuple>

#include "records/comparison.h"
#include "records/evaluation.h"
#include "records/measurements.h"
#include "records/multiple_choice.h"
#include "records/plan.h"

namespace nibble::testing {

inline records::LinearRecord sample_linear(const std::string& name, const std::string& group,
                                           records::Part part, records::Role role, int64_t out, int64_t in) {
  records::LinearRecord linear;
  linear.name = name;
  linear.group = group;
  linear.tap = group + ".input";
  linear.part = part;
  linear.role = role;
  linear.out = out;
  linear.in = in;
  linear.bytes16 = 2 * out * in;
  linear.bytes4 = out * in / 2 + out * in / 64 + 1200;
  return linear;
}

inline records::Measurements sample_measurements() {
  using records::Part, records::Role;
  records::Measurements m;
  m.inventory.family = "qwen2_vl";
  m.inventory.model = "models/sample";
  m.inventory.parameters = 250'000;
  m.inventory.other_bytes = 100'000;
  m.inventory.linears = {
      sample_linear("visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv", Part::vision, Role::qkv, 384,
                    128),
      sample_linear("visual.merger.mlp.0", "visual.merger.mlp.0", Part::projector, Role::projector, 512, 512),
      sample_linear("model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.qkv", Part::text, Role::q,
                    192, 192),
      sample_linear("model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.qkv", Part::text, Role::k,
                    64, 192),
  };
  m.inventory.linears[2].depth = m.inventory.linears[3].depth = 3;
  m.data = {"pictures.txt", "texts/\xc3\xa9t\xc3\xa9.txt"};
  m.samples = 2;
  m.rows = {4096, 1234};
  m.compute = "bf16";
  m.errors = {
      {"visual.blocks.0.attn.qkv", 0.0953, 0.151, {{{4096, 0.1, 1e9 / 3}, {0, 0, 0}}}},
      {"visual.merger.mlp.0", 0.1 + 0.2, 1.0 / 3, {{{1024, 5e-324, 1.7976931348623157e308}, {0, 0, 0}}}},
      {"model.layers.3.self_attn.q_proj", 0.0929, 0.14, {{{1024, 16, 100}, {1234, 2.5, 40}}}},
      {"model.layers.3.self_attn.k_proj", 0.0931, 0.2, {{{1024, 1, 0}, {1234, 0, 0}}}},
  };
  m.window = 2048;
  m.rounding = {"feedback", {0.03, 0.2}, 0, 0.25};
  m.effort = "auto";
  for (auto& errors : m.errors)
    errors.rounded = {20'000, errors.weight * 1.1, {{{1024, 0.05, 1e8}, {0, 0, 0}}}};
  m.inputs = {{"images/0003.jpg", records::Modality::vision, 12},
              {"texts.jsonl:3#1", records::Modality::text, 191}};
  m.solo = {{"visual.blocks.0.attn.qkv", "plain", {0.25, 1e-7}},
            {"visual.blocks.0.attn.qkv", "feedback", {0.125, 0}},
            {"model.layers.3.self_attn.qkv", "feedback", {0.0625, 0.03125}}};
  m.noise = {{1e-6, 2e-6}};
  m.errors[0].slices = {{Role::q, 0.09, {{{4096, 0.04, 1e8}, {0, 0, 0}}}},
                        {Role::k, 0.1, {{{4096, 0.05, 2e8}, {0, 0, 0}}}},
                        {Role::v, 0.11, {{{4096, 0.01, 1e7}, {0, 0, 0}}}}};
  return m;
}

inline records::Plan sample_plan() {
  records::Plan plan;
  plan.family = "qwen2_vl";
  plan.model = "models/sample";
  plan.policy = "activation-error";
  plan.budget = "10%";
  plan.measurements_digest = std::string(63, 'a') + "0";
  plan.budget_bytes = 330'000;
  plan.bytes = 320'123;
  plan.bytes_all4 = 300'000;
  plan.bytes_all16 = 900'000;
  plan.decisions = {
      {"visual.blocks.0.attn.qkv", true, "activation error 0.2 on vision, rank 2 of 4 groups", 0.2},
      {"visual.merger.mlp.0", false, "over budget", 0.1},
      {"model.layers.3.self_attn.q_proj", true, "activation error 0.41 on text, rank 1 of 4 groups", 0.41},
      {"model.layers.3.self_attn.k_proj", true, "activation error 0.41 on text, rank 1 of 4 groups", 0.41},
      {"model.layers.3.mlp.down_proj", false, "over budget", 1.0 / 3},
  };
  plan.rounding = {"feedback", {0.03, 0.2}, 0, 0.25};
  plan.decisions[1].rounding = "feedback";
  plan.data = {"pictures/samples.jsonl"};
  plan.window = 2048;
  plan.compute = "f32";
  plan.predicted = {{0.01, 0.002}};
  plan.curve = {{300'000, {0.2, 0.1}}, {330'000, {0.01, 0.002}}, {900'000, {0, 0}}};
  plan.verification = records::Verification{
      .data = {"pictures/samples.jsonl"},
      .inputs = {8, 0},
      .runs = {{"dynamic", 320'123, 3, {0.01, 0.002}, {{{0.02, 0.01, 0.03}, {0, 0, 0}}}},
               {"repaired", 320'000, 2, {0.02, 0.002}, {{{0.01, 0.005, 0.02}, {0, 0, 0}}}}},
      .chosen = 1};
  return plan;
}

inline records::Evaluation sample_evaluation() {
  records::Evaluation e;
  e.model = "models/sample-nf4";
  e.against = "models/sample";
  e.compute = "f32";
  e.tensor_bytes = 4'299'161;
  for (int i = 0; i < 96; ++i) {
    records::SampleResult sample;
    sample.id = "images/" + std::to_string(i) + ".jpg";
    sample.modality = records::Modality::vision;
    sample.prompt = "Describe the picture.\n";
    sample.expected = "two \"red\" circles \xe2\x80\xa6";
    sample.output = i % 13 == 5 ? "a blue square" : sample.expected;
    sample.exact = i % 13 != 5;
    sample.positions = 5 + i % 7;
    sample.loss = 0.05 + 0.001 * i;
    sample.kl = i % 13 == 5 ? 0.5 : 0.01;
    sample.agreement = i % 13 == 5 ? 0.75 : 1;
    e.samples.push_back(sample);
  }
  records::summarize(e);
  return e;
}

/// The sample evaluation with windows of plain text among its samples.
inline records::Evaluation sample_text_evaluation() {
  records::Evaluation e = sample_evaluation();
  e.samples.resize(3);
  e.samples[2].modality = records::Modality::text;
  for (int i = 0; i < 4; ++i) {
    records::SampleResult window;
    window.id = "texts.jsonl:1#" + std::to_string(i + 1);
    window.plain = true;
    window.generated = false;
    window.positions = 191 - 50 * i;
    window.bytes = 800 - 211 * i;
    window.loss = 3.25 + 0.125 * i;
    window.kl = 0.0625 * i;
    window.agreement = 1 - 0.0625 * i;
    e.samples.push_back(window);
  }
  records::summarize(e);
  return e;
}

inline records::MultipleChoice sample_multiple_choice() {
  records::MultipleChoice m;
  m.model = "models/sample-nf4";
  m.against = "models/sample";
  m.compute = "f32";
  m.tensor_bytes = 4'299'161;
  m.data = "mmlu";
  m.shots = 5;
  for (const auto& [name, category, questions] : {std::tuple{"abstract_algebra", "STEM", 7},
                                                  {"addition", "", 3},
                                                  {"astronomy", "STEM", 4},
                                                  {"virology", "other (business, health, misc.)", 2}}) {
    records::SubjectResult& subject = m.subjects.emplace_back();
    subject.name = name;
    subject.category = category;
    for (int i = 0; i < questions; ++i) {
      records::ChoiceResult question;
      question.line = 1 + 2 * i;
      question.shots = i == 3 ? 4 : 5;
      question.answer = i % 4;
      question.choice = i % 3 == 2 ? 1 : i % 4;
      question.reference = i % 4;
      question.log_probabilities = {-1.0 / 3, -2.5, -7, -0.1 - i};
      subject.questions.push_back(question);
    }
  }
  records::summarize(m);
  return m;
}

/// A finished 16-bit model, and a checkpoint made of it.
inline std::vector<records::ComparedModel> sample_comparison() {
  std::vector<records::ComparedModel> models(2);
  models[0].description = "16 bit";
  models[0].result = "two red circles";
  models[0].bytes = 9'000'000;
  models[1].description = "dynamic 10%: 2 of 126 linears in 16 bit";
  models[1].result = "a blue square";
  models[1].unchanged = "2 of 3";
  models[1].bytes = 4'299'161;
  models[1].evaluation = sample_text_evaluation();
  models[1].choices = sample_multiple_choice();
  models[1].policy = "dynamic";
  models[1].rounding = "feedback";
  models[1].over_budget = true;
  models[1].plan = sample_plan();
  models[1].spread =
      records::Spread{3, {records::Spread::Range{0.25, 0.5}, std::nullopt, records::Spread::Range{0, 1}}};
  return models;
}

}  // namespace nibble::testing
